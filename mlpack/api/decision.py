"""Can the data decide? Whether the confirming rows would prove a model that is as right as the original."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.flags import AGREEMENT_LIMIT, DEFAULT_LIMIT, NO_LIMIT
from mlpack.core.arrays import load_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from mlpack.api.prepare import Opened, Prepared
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.datasets.rows import RowDataset
    from mlpack.datasets.split import Split
    from mlpack.engine.plan import Leaf, Planned, Planner
    from mlpack.measure.limits import Comparison, Limit
    from mlpack.measure.metrics import Metric

ASSUMED_BASELINE = 0.9


@dataclass(frozen=True)
class Decision:
    """Whether the confirming rows can decide the limit, for a model that is as right as the original.

    `baseline` is the original's score, measured in an earlier run or assumed; `chance` that a harmless model is
    proven, `samples_needed` for 80%. `reason` says why nothing can be told where they are None. `differing` is the
    share of answers that a harmless model is taken to change, for right/wrong metrics; `differences_from` says how
    many candidates of an earlier run that, or the width of the interval, was measured of: 0 where it is assumed.

    With `clusters`, both are told for answers that change by whole clusters: `samples` then weigh as few as
    `worth`, and `chance_apart` is the chance if each sample went its own way. The truth lies between.
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
    clusters: int | None = None
    worth: int | None = None
    chance_apart: float | None = None
    differing: float | None = None
    differences_from: int = 0
    percent: bool = True

    @property
    def enough(self) -> bool:
        """Whether a harmless model would be proven in at least 80% of cases."""
        return self.samples is not None and self.samples_needed is not None and self.samples >= self.samples_needed


def decision_of(
    recipe: Recipe,
    limit: Limit | None,
    opened: Opened,
    prepared: Prepared | None,
    planner: Planner,
    leaves: Sequence[Leaf],
) -> Decision:
    """What is known before anything runs; without kept scores the original is taken to be right in 90%.

    How far a harmless model's answers are from the original's is what the candidates (`leaves`) that an earlier run
    scored showed, the farthest of them; without any that differ, 2% of right/wrong answers are taken to change, and of
    other metrics nothing is told.
    """
    from mlpack.measure.limits import Limit as Parsed
    from mlpack.measure.metrics import metric
    from mlpack.measure.power import DISCORDANCE, can_decide, can_decide_by_width

    def undecided(reason: str, name: str | None = None, samples: int | None = None) -> Decision:
        text = None if limit is None else limit.text
        return Decision(name, text, None, None, False, samples, None, None, reason)

    data = opened.data
    if data is None:
        return undecided("there is no data: the verdict will be none")
    split = _split(opened)
    samples = len(split.confirming)
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
    measured = _known_score(recipe, prepared, planner, name)
    # Of agreement every differing answer is harm: what an earlier candidate lost says nothing of a harmless one.
    earlier = [] if name == "agreement" else _earlier(recipe, limit, prepared, planner, leaves)
    if judged.kind != "proportion":
        if measured is None or not earlier:
            why = f"how far answers move under {name} is not known yet: after a run, plan tells it from what that kept"
            return undecided(why, name, samples)
        allowed = limit.absolute(measured, judged)
        reach = max((each.drop_ci90[1] - each.drop) * math.sqrt(each.samples) for each in earlier)
        found = can_decide_by_width(samples, allowed, reach)
        return Decision(
            name, limit.text, allowed, measured, True, samples, found.chance, found.samples_needed,
            differences_from=len(earlier), percent=judged.percent,
        )  # fmt: skip
    baseline = ASSUMED_BASELINE if measured is None else measured
    allowed = limit.absolute(baseline, judged)
    differing = max((each.discordant / each.samples for each in earlier), default=0.0)
    if not differing:
        differing, earlier = DISCORDANCE, []
    apart = Decision(
        name, limit.text, allowed, baseline, measured is not None, samples, None, None,
        differing=differing, differences_from=len(earlier),
    )  # fmt: skip
    found = can_decide(samples, allowed, differing)
    apart = replace(apart, chance=found.chance, samples_needed=found.samples_needed)
    return _by_cluster(apart, split.cluster_sizes) if len(split.cluster_sizes) else apart


def _earlier(
    recipe: Recipe, limit: Limit, prepared: Prepared | None, planner: Planner, leaves: Sequence[Leaf]
) -> list[Comparison]:
    """The candidates that hold the limit on the choosing rows, where an earlier run has scored them whole."""
    from mlpack.engine.judge import in_part, kept, metric_of
    from mlpack.measure.limits import compare

    original = None if prepared is None else scored(recipe, planner, prepared.baseline)
    if original is None or original.done is None:
        return []
    context = planner.context
    cluster = load_arrays(original.done.file("kept.npz")).get("cluster")
    found = []
    for leaf in leaves:
        planned = scored(recipe, planner, leaf.model)
        if planned is None or planned.done is None or in_part(planned.done):
            continue
        if planned.done.report.metrics["nonfinite"]:
            continue
        told = compare(
            metric_of(recipe, context), kept(original.done), kept(planned.done), cluster, limit, context.seed
        )
        if told.limit is None or told.drop <= told.limit:
            found.append(told)
    return found


def _by_cluster(apart: Decision, sizes: np.ndarray) -> Decision:
    """The same decision where the answers of a cluster change together.

    Clusters of these sizes then tell as much as Kish's effective number of samples does (L. Kish, Survey
    Sampling, 1965).
    """
    from mlpack.measure.power import can_decide

    assert apart.samples is not None
    assert apart.limit is not None
    worth = int(sizes.sum()) ** 2 / int(sizes @ sizes)
    assert apart.differing is not None
    found = can_decide(max(1, math.floor(worth)), apart.limit, apart.differing)
    return replace(
        apart,
        chance=found.chance,
        samples_needed=math.ceil(found.samples_needed * apart.samples / worth),
        clusters=len(sizes),
        worth=found.samples,
        chance_apart=apart.chance,
    )


def _has_classes(data: RowDataset) -> bool:
    """Whether the labels look like class numbers: what top1 is chosen for."""
    labels = next(iter(data.batches(256))).labels
    return labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub"


def _split(opened: Opened) -> Split:
    from mlpack.datasets.split import Split

    assert opened.context.data is not None
    assert opened.context.data.split is not None
    return Split.load(Path(opened.context.data.split))


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


def scored(
    recipe: Recipe, planner: Planner, model: Model | None, part: str = "choosing", reach: float | None = None
) -> Planned | None:
    """The accuracy check of a model on a part of the data; None where the model is not known yet."""
    from mlpack.engine.validate import options_of

    if model is None or model.backend is None:
        return None
    options = {**recipe.accuracy.options, "part": part, "reach": reach}
    return planner.look_up(options_of(recipe.accuracy.model_copy(update={"options": options})), model)
