"""Can the data decide? Whether the confirming rows would prove a model that is as right as the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.flags import AGREEMENT_LIMIT, DEFAULT_LIMIT, NO_LIMIT

if TYPE_CHECKING:
    from mlpack.api.prepare import Opened, Prepared
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe, Step
    from mlpack.datasets.rows import RowDataset
    from mlpack.engine.plan import Planned, Planner
    from mlpack.measure.limits import Limit
    from mlpack.measure.metrics import Metric

ASSUMED_BASELINE = 0.9


@dataclass(frozen=True)
class Decision:
    """Whether the confirming rows can decide the limit, for a model that is as right as the original.

    `baseline` is the original's score, measured in an earlier run or assumed; `chance` that a harmless model is
    proven, `samples_needed` for 80%. `reason` says why nothing can be told where they are None.
    """

    metric: str | None
    limit_text: str | None
    limit: float | None
    baseline: float | None
    baseline_measured: bool
    samples: int | None
    chance: float | None
    samples_needed: int | None
    reason: str | None = None

    @property
    def enough(self) -> bool:
        """Whether a harmless model would be proven in at least 80% of cases."""
        return self.samples is not None and self.samples_needed is not None and self.samples >= self.samples_needed


def decision_of(
    recipe: Recipe, limit: Limit | None, opened: Opened, prepared: Prepared | None, planner: Planner
) -> Decision:
    """What is known before anything runs; without a kept score the original is taken to be right in 90%."""
    from mlpack.measure.limits import Limit as Parsed
    from mlpack.measure.limits import can_decide
    from mlpack.measure.metrics import metric

    def undecided(reason: str, name: str | None = None, samples: int | None = None) -> Decision:
        text = None if limit is None else limit.text
        return Decision(name, text, None, None, False, samples, None, None, reason)

    data = opened.data
    if data is None:
        return undecided("there is no data: the verdict will be none")
    samples = _confirming(opened)
    if recipe.limit == NO_LIMIT:
        return undecided("there is no limit: the verdict will be none", samples=samples)
    name = recipe.accuracy.options.get("metric") if prepared is not None else recipe.data.metric
    if name is None and data.labelled:
        name = "top1" if _has_classes(data) else None
        if name is None:
            return undecided("the metric follows from model and data once the model is loaded", samples=samples)
    name = name or "agreement"
    judged: Metric = metric(name, labels=data.labelled, output=recipe.data.output)
    limit = limit or Parsed.parse(AGREEMENT_LIMIT if name == "agreement" else DEFAULT_LIMIT)
    if judged.kind != "proportion":
        return undecided(f"for {name} this can only be told once it is measured", name, samples)
    measured = _known_score(recipe, prepared, planner, name)
    baseline = ASSUMED_BASELINE if measured is None else measured
    allowed = limit.absolute(baseline, judged)
    found = can_decide(samples, allowed)
    return Decision(
        name, limit.text, allowed, baseline, measured is not None, samples, found.chance, found.samples_needed
    )


def _has_classes(data: RowDataset) -> bool:
    """Whether the labels look like class numbers: what top1 is chosen for."""
    labels = next(iter(data.batches(256))).labels
    return labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub"


def _confirming(opened: Opened) -> int:
    from mlpack.datasets.split import Split

    assert opened.context.data is not None
    assert opened.context.data.split is not None
    return len(Split.load(Path(opened.context.data.split)).rows("confirming"))


def _known_score(recipe: Recipe, prepared: Prepared | None, planner: Planner, name: str) -> float | None:
    """The original's score where an earlier run kept one; with itself it always agrees."""
    if name == "agreement":
        return 1.0
    if prepared is None:
        return None
    for part in ("confirming", "choosing"):
        planned = scored(recipe, planner, prepared.baseline, part)
        if planned is not None and planned.done is not None:
            value: float | None = planned.done.report.metrics["value"]
            return value
    return None


def scored(recipe: Recipe, planner: Planner, model: Model | None, part: str = "choosing") -> Planned | None:
    """The accuracy check of a model on a part of the data; None where the model is not known yet."""
    from mlpack.engine.validate import options_of

    if model is None or model.backend is None:
        return None
    return planner.look_up(options_of(_part(recipe.accuracy, part)), model)


def _part(step: Step, part: str) -> Step:
    return step.model_copy(update={"options": {**step.options, "part": part}})
