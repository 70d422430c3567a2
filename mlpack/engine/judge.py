"""Judge: scores candidates beside the original, compares them sample by sample, and confirms the winner."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlpack.core.arrays import load_arrays
from mlpack.engine.relent import can_relent
from mlpack.engine.run import run
from mlpack.engine.validate import options_of
from mlpack.engine.workers import Task
from mlpack.errors import ModelError, StageFailed
from mlpack.measure.limits import compare, points
from mlpack.measure.metrics import metric
from mlpack.measure.slices import drops_by_group

if TYPE_CHECKING:
    from mlpack.core.artifact import GroupRecord
    from mlpack.core.dataset import Part
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe, Step
    from mlpack.engine.cache import Done
    from mlpack.engine.candidates import Candidate
    from mlpack.engine.context import Context
    from mlpack.measure.limits import Comparison, Limit
    from mlpack.measure.metrics import Metric

# The same samples alone and batched: rounding stays far below, one scale for a whole batch lies far above.
BATCH_DEPENDENT = 1e-3
# A drop of half the allowed one may be none, where rows are too few to tell.
_HALF = 0.5
_JUST_OVER = 1.05


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


class Judge:
    """Scores candidates beside the original and compares them; the original is never scored twice."""

    def __init__(self, recipe: Recipe, limit: Limit | None, context: Context) -> None:
        self.recipe, self.limit, self.context = recipe, limit, context
        self.metric = metric_of(recipe, context)
        self.originals: dict[Part, Done] = {}

    def task(self, candidate: Candidate) -> Task:
        """The accuracy check of a candidate on the choosing rows; it ends once no rest of them can save it."""
        reach = reach_of(self.metric, self.limit, self.original("choosing"))
        return self._task(candidate.model, "choosing", {"reach": reach})

    def score(self, model: Model, part: Part, batch: int | None = None) -> Done:
        """The accuracy check of a model on a part of the data."""
        task = self._task(model, part, {"batch": batch} if batch else {})
        return run(task.stage, model, self.context, label=task.label)

    def _task(self, model: Model, part: Part, options: dict[str, Any]) -> Task:
        step = with_options(self.recipe.accuracy, {"part": part, **options})
        return Task(options_of(step), model, f"{step.stage} on the {part} rows, {model.numerics} · {model.backend}")

    def original(self, part: Part) -> Done:
        """That of the original.

        Raises:
            ModelError: it answers NaN.
        """
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
        """Sample by sample, or cluster by cluster; where one was scored in part, on that part."""
        one, two, cluster = kept(original), kept(other), self._cluster(original)
        if in_part(other):
            there = np.isin(load_arrays(original.file("kept.npz"))["rows"], load_arrays(other.file("kept.npz"))["rows"])
            one = {name: array[there] for name, array in one.items()}
            cluster = None if cluster is None else cluster[there]
        return compare(self.metric, one, two, cluster=cluster, limit=self.limit, seed=self.context.seed)

    def choosing(self, candidate: Candidate) -> Candidate:
        """The candidate with its accuracy on the choosing rows; lost where it fails the limit there."""
        if candidate.lost:
            return candidate
        task = self.task(candidate)
        try:
            return self.judged(candidate, run(task.stage, task.model, self.context, label=task.label))
        except StageFailed as error:
            return candidate.failed(error)

    def judged(self, candidate: Candidate, done: Done) -> Candidate:
        """The candidate with what its accuracy check found."""
        if nonfinite := done.report.metrics["nonfinite"]:
            facts = {**candidate.facts, "nonfinite": nonfinite}
            return replace(candidate, facts=facts).out(f"answers NaN or infinity on {nonfinite} samples")
        original = self.original("choosing")
        comparison = self.compare(original, done)
        part = in_part(done)
        judged = replace(candidate, facts={**candidate.facts, "comparison": comparison, "scored_in_part": part})
        if comparison.limit is not None and comparison.drop > comparison.limit:
            where = f" on {comparison.samples:,} of {original.report.metrics['samples']:,} samples" if part else ""
            return judged.out(f"drops {points(comparison.drop, comparison)}{where}, over the limit")
        return judged

    def relents(self, tried: list[Candidate]) -> bool:
        """Whether milder forms are wanted: asked for, or nothing that keeps the promise holds the limit."""
        if self.limit is None:
            return False
        return self.recipe.auto or (self.recipe.promise is not None and not any(self.keeps(each) for each in tried))

    def holds(self, candidate: Candidate) -> bool:
        """Whether the choosing rows leave little doubt, or as little as so few rows can leave."""
        comparison = cast("Comparison | None", candidate.facts.get("comparison"))
        if candidate.lost or comparison is None:
            return False
        return safe(candidate) or comparison.limit is None or comparison.drop <= _HALF * comparison.limit

    def keeps(self, candidate: Candidate) -> bool:
        """Whether it holds, and is in the numerics that were promised."""
        promise = self.recipe.promise
        return self.holds(candidate) and (promise is None or candidate.model.numerics == promise)

    def lossy(self, candidate: Candidate) -> bool:
        """Whether its accuracy is what is wrong with it, and there are milder forms of it."""
        promise = self.recipe.promise
        judged = "comparison" in candidate.facts or "nonfinite" in candidate.facts
        promised = promise is None or candidate.model.numerics == promise
        return judged and promised and not self.holds(candidate) and can_relent(candidate)

    def excess(self, candidate: Candidate) -> float:
        """Its drop over the allowed one; up to 1 where it holds."""
        comparison = cast("Comparison | None", candidate.facts.get("comparison"))
        if comparison is None or not comparison.limit:
            return 0.0 if self.holds(candidate) else math.inf
        over = comparison.drop / comparison.limit
        return min(over, 1.0) if self.holds(candidate) else max(over, _JUST_OVER)

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


def metric_of(recipe: Recipe, context: Context) -> Metric:
    """The metric that a recipe, whose metric is settled, judges by."""
    options = recipe.accuracy.options
    labelled = context.data is not None and context.data.labelled
    return metric(options["metric"], labels=labelled, output=options.get("output"))


def reach_of(metric: Metric, limit: Limit | None, original: Done) -> float | None:
    """The worst value that a candidate may have; None where the first rows cannot tell that it will miss it."""
    if limit is None or metric.best is None:
        return None
    return metric.worsened(original.report.metrics["value"], limit)


def in_part(done: Done) -> bool:
    """Whether scoring ended before the last sample."""
    return done.report.metrics.get("at_best") is not None


def kept(done: Done) -> dict[str, np.ndarray]:
    """What the metric kept of every sample."""
    arrays = load_arrays(done.file("kept.npz"))
    return {name.removeprefix("kept/"): array for name, array in arrays.items() if name.startswith("kept/")}


def with_options(step: Step, options: dict[str, Any]) -> Step:
    """The step with these options over its own."""
    return step.model_copy(update={"options": {**step.options, **options}})


def safe(candidate: Candidate) -> bool:
    """Whether the choosing rows already say pass or likely: such a one seldom fails on the confirming rows."""
    comparison = cast("Comparison | None", candidate.facts.get("comparison"))
    return comparison is None or comparison.verdict in {"pass", "likely", "none"}
