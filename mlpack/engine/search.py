"""Search: make the candidates, keep the fastest inside the limit on the choosing rows, confirm it once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from mlpack.core.arrays import load_arrays
from mlpack.engine import choice
from mlpack.engine.candidates import Candidate, candidates
from mlpack.engine.run import run
from mlpack.engine.validate import options_of
from mlpack.errors import GateFailed, ModelError
from mlpack.measure.limits import compare, points, smallest_limit
from mlpack.measure.metrics import metric
from mlpack.measure.slices import drops_by_group

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.artifact import GroupRecord
    from mlpack.core.dataset import Part
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe, Step
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context
    from mlpack.measure.limits import Comparison, Limit
    from mlpack.measure.metrics import Metric

# The same samples alone and batched: rounding stays far below, one scale for a whole batch lies far above.
BATCH_DEPENDENT = 1e-3
MOSTLY = 0.5
# Two launches resolve no less than this; what is nearer is decided by the final comparison and its interval.
_DOUBT = 1.1
_SCREENING = {"launches": 2, "seconds": 0.2, "components": False}


@dataclass(frozen=True)
class Found:
    """The winner, confirmed; all candidates with what they measured; and how the winner was judged.

    `parent` is the fastest candidate in the original's numerics: what a promise of other numerics has to beat.
    """

    winner: Candidate
    parent: Candidate | None
    candidates: tuple[Candidate, ...]
    comparison: Comparison
    batch: int
    batch_dependent: bool
    baseline_score: Done
    score: Done
    groups: tuple[GroupRecord, ...] = ()


def search(recipe: Recipe, limit: Limit | None, context: Context) -> Found:
    """Run the recipe's steps in every way that they propose; choose on the choosing rows; confirm.

    Raises:
        GateFailed: no candidate holds the promise and the limit; the hint says what would.
        ModelError: the original answers NaN on the data.
    """
    assert context.baseline is not None
    judge = _Judge(recipe, limit, context)
    tried = candidates(recipe.steps, context.baseline, context)
    tried = [judge.choosing(each) for each in tried]
    tried = _timed(tried, recipe, context)
    parent = _fastest([each for each in tried if not each.lost and each.model.numerics == context.baseline.numerics])
    winner, tried = _chosen(tried, parent, recipe)
    return judge.confirmed(winner, parent, tried)


class _Judge:
    """Scores candidates beside the original and compares them; the original is never scored twice."""

    def __init__(self, recipe: Recipe, limit: Limit | None, context: Context) -> None:
        self.recipe, self.limit, self.context = recipe, limit, context
        options = recipe.accuracy.options
        labelled = context.data is not None and context.data.labelled
        self.metric: Metric = metric(options["metric"], labels=labelled, output=options.get("output"))
        self.originals: dict[Part, Done] = {}

    def score(self, model: Model, part: Part, batch: int | None = None) -> Done:
        step = _with_options(self.recipe.accuracy, {"part": part, **({"batch": batch} if batch else {})})
        label = f"{step.stage} on the {part} rows, {model.numerics} · {model.backend}"
        return run(options_of(step), model, self.context, label=label)

    def original(self, part: Part) -> Done:
        assert self.context.baseline is not None
        if part in self.originals:
            return self.originals[part]
        done = self.score(self.context.baseline, part)
        if done.report.metrics["nonfinite"]:
            raise ModelError(
                f"the original model answers NaN or infinity on {done.report.metrics['nonfinite']} of "
                f"{done.report.metrics['samples']} samples",
                "look at those rows of the data, or at the model: nothing can be compared with NaN",
            )
        self.originals[part] = done
        return done

    def compare(self, original: Done, other: Done) -> Comparison:
        one, two = kept(original), kept(other)
        return compare(self.metric, one, two, cluster=self._cluster(original), limit=self.limit, seed=self.context.seed)

    def choosing(self, candidate: Candidate) -> Candidate:
        """The candidate with its accuracy on the choosing rows; lost where it fails the limit there."""
        if candidate.lost:
            return candidate
        original = self.original("choosing")
        done = self.score(candidate.model, "choosing")
        if done.report.metrics["nonfinite"]:
            return candidate.out(f"answers NaN or infinity on {done.report.metrics['nonfinite']} samples")
        comparison = self.compare(original, done)
        facts = {**candidate.facts, "comparison": comparison}
        judged = replace(candidate, facts=facts)
        if comparison.limit is not None and comparison.drop > comparison.limit:
            return judged.out(f"drops {points(comparison.drop, comparison)}, over the limit")
        return judged

    def confirmed(self, winner: Candidate, parent: Candidate | None, tried: list[Candidate]) -> Found:
        """Judge the winner on rows that nothing has looked at; where batch mates matter, on the worse of two."""
        original = self.original("confirming")
        done = self.score(winner.model, "confirming")
        comparison, batch = self.compare(original, done), done.report.metrics["batch"]
        depends = done.report.metrics["batch_spread"] > BATCH_DEPENDENT
        if depends:
            alone = self.score(winner.model, "confirming", batch=1)
            other = self.compare(original, alone)
            if other.drop > comparison.drop:
                comparison, batch, done = other, 1, alone
        groups = self._groups(original, done)
        return Found(winner, parent, tuple(tried), comparison, batch or 1, depends, original, done, groups)

    def _groups(self, original: Done, done: Done) -> tuple[GroupRecord, ...]:
        beside = load_arrays(original.file("kept.npz"))
        if "group" not in beside or self.metric.name == "agreement":
            return ()
        return drops_by_group(
            self.metric,
            kept(original),
            kept(done),
            beside["group"],
            beside.get("cluster"),
            self.limit,
            self.context.seed,
        )

    def _cluster(self, done: Done) -> np.ndarray | None:
        return load_arrays(done.file("kept.npz")).get("cluster")


def kept(done: Done) -> dict[str, np.ndarray]:
    """What the metric kept of every sample."""
    arrays = load_arrays(done.file("kept.npz"))
    return {name.removeprefix("kept/"): array for name, array in arrays.items() if name.startswith("kept/")}


def _with_options(step: Step, options: dict[str, Any]) -> Step:
    return step.model_copy(update={"options": {**step.options, **options}})


def _timed(tried: list[Candidate], recipe: Recipe, context: Context) -> list[Candidate]:
    """The candidates that are left with their median ms by batch size, all timed in turns; none off target."""
    running = {f"c{index}": each for index, each in enumerate(tried) if not each.lost}
    if not context.target.here or not running:
        return tried
    key = choice.key([each.model.fingerprint() for each in running.values()], context)
    p50 = choice.recall(context.cache, key)
    if p50 is None or context.fresh:
        first, *others = running
        step = _with_options(recipe.latency, _SCREENING)
        done = run(
            options_of(step),
            running[first].model,
            context,
            rivals={label: running[label].model for label in others},
            label=f"timing {len(running)} candidates in turns",
        )
        p50 = {label: {} for label in running}
        for row in done.report.tables["latency"]:
            label = first if row["contender"] == "optimized" else row["contender"]
            p50[label][str(row["batch"])] = row["p50"]
        choice.remember(context.cache, key, p50)
    timed = {id(each): p50[label] for label, each in running.items()}
    return [
        replace(each, facts={**each.facts, "p50": timed[id(each)]}) if id(each) in timed else each for each in tried
    ]


def pace(candidate: Candidate) -> float:
    """Geometric mean of the medians over batch sizes, ms: what candidates are ranked by. Infinite: not timed."""
    p50 = cast("dict[str, float] | None", candidate.facts.get("p50"))
    if not p50:
        return math.inf
    return math.exp(sum(math.log(ms) for ms in p50.values()) / len(p50))


def _fastest(those: list[Candidate]) -> Candidate | None:
    return min(those, key=pace, default=None)


def _chosen(tried: list[Candidate], parent: Candidate | None, recipe: Recipe) -> tuple[Candidate, list[Candidate]]:
    """The fastest that keeps the promise; every other one with the reason why it lost."""
    if recipe.promise is not None:
        tried = [_held_to(each, recipe.promise, parent) for each in tried]
    left = [each for each in tried if not each.lost]
    if not left:
        raise _nothing_left(tried, recipe)
    sure = [each for each in left if _safe(each)] or left
    winner = min(sure, key=lambda each: (pace(each), _drop(each)))
    return winner, [each if each is winner or each.lost else each.out(_why(each, winner, sure)) for each in tried]


def _held_to(candidate: Candidate, promise: str, parent: Candidate | None) -> Candidate:
    if candidate.lost:
        return candidate
    if candidate.model.numerics != promise:
        return candidate.out(f"is not {promise}")
    if candidate.model.numerics_share < MOSTLY:
        return candidate.out(f"only {candidate.model.numerics_share:.0%} of its compute is {promise}")
    if parent is not None and pace(candidate) > _DOUBT * pace(parent):
        return candidate.out(f"is slower than {parent.label} ({pace(candidate) / pace(parent):.2f} × its time)")
    return candidate


def _safe(candidate: Candidate) -> bool:
    """Whether the choosing rows already say pass or likely: such a one seldom fails on the confirming rows."""
    comparison = cast("Comparison | None", candidate.facts.get("comparison"))
    return comparison is None or comparison.verdict in {"pass", "likely", "none"}


def _drop(candidate: Candidate) -> float:
    comparison = cast("Comparison | None", candidate.facts.get("comparison"))
    return comparison.drop if comparison else 0.0


def _why(candidate: Candidate, winner: Candidate, sure: list[Candidate]) -> str:
    if candidate not in sure:
        return "the choosing rows leave its accuracy in doubt"
    if math.isinf(pace(winner)):
        return "drops more"
    return f"slower: {pace(candidate) / pace(winner):.2f} × the winner's time"


def _nothing_left(tried: list[Candidate], recipe: Recipe) -> GateFailed:
    """Exit 5: what each attempt at the promise failed on, and the best model that there is."""
    promised = [each for each in tried if recipe.promise is None or each.model.numerics == recipe.promise]
    reasons = "; ".join(f"{each.label}: {each.lost}" for each in promised) or "no candidate could be made"
    others = [each for each in tried if each.lost == f"is not {recipe.promise}"]
    best = _fastest([each for each in others if _safe(each)] or others)
    if recipe.promise is None or best is None:
        return GateFailed(f"no candidate holds the limit: {reasons}", _smallest(promised))
    offer = f"the fastest that does is {best.label}"
    return GateFailed(
        f"--{recipe.promise} cannot be kept: {reasons}",
        f"{offer}: leave --{recipe.promise} out and mlpack takes it. {_smallest(promised)}".strip(),
    )


def _smallest(those: list[Candidate]) -> str:
    measured = [each for each in those if "comparison" in each.facts and "over the limit" in (each.lost or "")]
    if not measured:
        return ""
    nearest = min(measured, key=_drop)
    return f"Or allow more: --max-drop {smallest_limit(cast('Comparison', nearest.facts['comparison']))}"
