"""`mlpack.plan()`: what `optimize` would run, what this machine lacks, whether the data can decide; runs nothing."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mlpack.api.decision import Decision, decision_of, scored
from mlpack.api.flags import NO_LIMIT
from mlpack.api.floor import counted_of, floor_of
from mlpack.api.optimize import settled
from mlpack.api.prediction import prediction_of
from mlpack.api.wanted import recipe_for
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.core.summary import Told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlpack.api.floor import Floor
    from mlpack.api.prediction import Prediction
    from mlpack.api.prepare import Prepared
    from mlpack.api.wanted import Wanted
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.core.stage import Stage
    from mlpack.core.summary import Part
    from mlpack.engine.context import Context
    from mlpack.engine.plan import Leaf, Planned, Planner
    from mlpack.measure.limits import Limit

# A child that only imports torch and the exporter holds this much; a conversion holds the model several times.
_CHILD_BYTES = 450_000_000
_COPIES_IN_MEMORY = 4
_FLAVOURS = 4


@dataclass(frozen=True)
class Plan(Told):
    """What a run would do.

    `steps` make candidates, `measuring` says how they are judged; `disk_bytes` and `memory_bytes` are rough upper
    estimates, None where the model's size is not known yet; `floor` and `prediction` are None where no ONNX
    graph is there yet, and `prediction` where the target is this machine.
    """

    model: str
    target: str
    threads: int
    steps: tuple[Planned, ...]
    measuring: tuple[tuple[str, str], ...]
    candidates: int | None
    lacks: tuple[str, ...]
    decision: Decision
    disk_bytes: int | None
    memory_bytes: int | None
    floor: Floor | None
    prediction: Prediction | None

    def summary(self) -> Iterator[Part]:
        """The stages, what they would cost, whether the data can decide."""
        from mlpack.api.plan_summary import plan_summary

        return plan_summary(self)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        fields = ("stage", "options", "state", "depth", "optional")
        return {
            "model": self.model,
            "target": self.target,
            "threads": self.threads,
            "steps": [{**{name: getattr(each, name) for name in fields}, "why": list(each.why)} for each in self.steps],
            "measuring": [{"what": what, "state": state} for what, state in self.measuring],
            "candidates": self.candidates,
            "lacks": list(self.lacks),
            "decision": {**vars(self.decision), "enough": self.decision.enough},
            "estimates": {"disk_bytes": self.disk_bytes, "memory_bytes": self.memory_bytes},
            "floor": None if self.floor is None else vars(self.floor),
            "prediction": None if self.prediction is None else vars(self.prediction),
        }


@progress_in_notebooks
def plan(
    model: str | Path | None = None,
    *,
    fresh: bool = False,
    reporter: Reporter | None = None,
    **wanted: Unpack[Wanted],
) -> Plan:
    """What `optimize` with the same keywords would do. Runs no stage; what is lacking is listed, not raised.

    Raises:
        UsageError, ModelError, DataError: what was handed in cannot be used.
        UnsupportedNumerics: the target lacks what a step asks for.
        UsageError: the target's memory does not hold a batch that would be timed.
    """
    known = load_settings(Path.cwd())
    recipe = recipe_for(known, model, wanted)
    return plan_recipe(recipe, known.cache, reporter or Silent(), fresh=fresh)


def plan_recipe(recipe: Recipe, cache: Path, reporter: Reporter, *, fresh: bool = False) -> Plan:
    """The plan of a recipe."""
    from dataclasses import replace

    from mlpack.api.prepare import open_recipe, with_source
    from mlpack.core.targets import load_target
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.plan import Planner
    from mlpack.engine.validate import check, lists_for, options_of
    from mlpack.measure.limits import Limit as Parsed

    Deadline(recipe.time_limit)
    limit = None if recipe.limit in {None, NO_LIMIT} else Parsed.parse(recipe.limit or "")
    # The metric follows from the data, which is not open yet; whether the steps hold together does not depend on it.
    stages = check(_with_metric(recipe, recipe.data.metric or "top1"), load_target(recipe.target))
    stages += [options_of(step) for steps in recipe.beside for step in steps]
    opened = open_recipe(recipe, cache, reporter, fresh=fresh)
    first = Planner(opened.context).look_up(opened.stage, None)
    prepared = None if first.done is None else with_source(opened, recipe, first.done)
    if prepared is not None:
        recipe, limit = settled(recipe, limit, prepared)
    context = opened.context if prepared is None else prepared.context
    planner = Planner(context)
    source = None if prepared is None else prepared.baseline
    lists = (recipe.steps, *recipe.beside) if source is None else lists_for(recipe, context.target, source)
    grown = [planner.grow(steps, source) for steps in lists]
    later = [replace(each, depth=each.depth + 1) for steps, _ in grown for each in steps]
    leaves = [leaf for _, found in grown for leaf in found]
    planned = (first, *later)
    size = source.size_bytes if source is not None else _size_given(recipe.source.model)
    disk = None if size is None else size * _models_to_write(planned)
    memory = None if size is None else _CHILD_BYTES + _COPIES_IN_MEMORY * size
    if prepared is not None:
        stages = [*stages, options_of(recipe.accuracy), options_of(recipe.latency), options_of(recipe.golden)]
    counted = counted_of([source, *(leaf.model for leaf in leaves)], options_of(recipe.latency), context)
    return Plan(
        model=recipe.source.model,
        target=context.target.name,
        threads=context.threads,
        steps=planned,
        measuring=tuple(_measuring(recipe, limit, prepared, planner, leaves)),
        candidates=None if any(leaf.model is None for leaf in leaves) else len(leaves),
        lacks=tuple(_lacks([opened.stage, *stages], context, disk, memory)),
        decision=decision_of(recipe, limit, opened, prepared, planner, leaves),
        disk_bytes=disk,
        memory_bytes=memory,
        floor=None if counted is None else floor_of(counted, options_of(recipe.latency), context),
        prediction=None
        if counted is None
        else prediction_of(counted, context.target, context.threads, _backend(stages)),
    )


def _backend(stages: list[Stage]) -> str | None:
    """The one that the recipe names, if it does."""
    named = {stage.model_dump()["backend"] for stage in stages if stage.chooses_backend}
    return named.pop() if len(named) == 1 and "auto" not in named else None


def _with_metric(recipe: Recipe, name: str) -> Recipe:
    options = {**recipe.accuracy.options, "metric": recipe.accuracy.options.get("metric", name)}
    return recipe.model_copy(update={"accuracy": recipe.accuracy.model_copy(update={"options": options})})


def _measuring(
    recipe: Recipe, limit: Limit | None, prepared: Prepared | None, planner: Planner, leaves: list[Leaf]
) -> list[tuple[str, str]]:
    """What is measured once the candidates are there, and whether an earlier run's measure is kept."""
    from mlpack.engine.judge import metric_of, reach_of

    target = planner.context.target
    timing = "runs: a timing is never kept" if target.here else "not measured here"
    if prepared is None:
        return [("accuracy of the original and of each candidate", "runs"), ("latency, in turns", timing)]
    original = scored(recipe, planner, prepared.baseline)
    reach = None
    if original is not None and original.done is not None:
        reach = reach_of(metric_of(recipe, planner.context), limit, original.done)
    scores = [_score(recipe, planner, leaf.model, reach=reach) for leaf in leaves]
    kept = scores.count("kept")
    chosen = f"{kept} of {len(scores)} kept" if all(leaf.model is not None for leaf in leaves) else "runs"
    return [
        ("accuracy of the original, choosing rows", _score(recipe, planner, prepared.baseline)),
        ("accuracy of each candidate, choosing rows", chosen),
        ("accuracy of the original, confirming rows", _score(recipe, planner, prepared.baseline, "confirming")),
        ("accuracy of the winner, confirming rows", "known once it is chosen"),
        ("latency, in turns with the original", timing),
    ]


def _score(
    recipe: Recipe, planner: Planner, model: Model | None, part: str = "choosing", reach: float | None = None
) -> str:
    planned = scored(recipe, planner, model, part, reach)
    return "runs" if planned is None else planned.state


def _size_given(given: str) -> int | None:
    path = Path(given).expanduser()
    return path.stat().st_size if path.is_file() else None


def _models_to_write(planned: Sequence[Planned]) -> int:
    """How many more model folders there may be; a step whose ways are not known yet counts as several."""
    sure = sum(each.state == "runs" and (each.writes_model or each.depth == 0) for each in planned)
    waiting = [each for each in planned if each.state == "unknown" and each.writes_model]
    return sure + sum(_FLAVOURS if each.optional else 1 for each in waiting)


def _lacks(stages: list[Stage], context: Context, disk: int | None, memory: int | None) -> list[str]:
    """What `optimize` would refuse or leave unmeasured here, one line each."""
    found = []
    wanted: dict[str, list[str]] = {}
    for stage in stages:
        for library in stage.needs():
            wanted.setdefault(library, []).append(stage.name)
    for library, names in wanted.items():
        if importlib.util.find_spec(library) is None:
            users = ", ".join(dict.fromkeys(names))
            found.append(f"{library} is not installed; {users} would use it: pip install {library}")
    found += [f"{stage.name}: {reason}" for stage in stages if (reason := stage.lacks())]
    if not context.target.here:
        found.append(f"this machine is not {context.target.title}: latency is not measured here")
    if disk is not None:
        free = shutil.disk_usage(_existing(context.cache)).free
        if disk > free:
            found.append(f"the cache may need {disk / 1e9:.1f} GB; {free / 1e9:.1f} GB are free: set MLPACK_CACHE")
    if memory is not None:
        import psutil

        there = psutil.virtual_memory().available
        if memory > there:
            found.append(f"a stage may need {memory / 1e9:.1f} GB of memory; {there / 1e9:.1f} GB are free")
    return found


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())
