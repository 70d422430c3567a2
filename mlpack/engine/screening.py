"""Screening: a quick timing of all candidates in turns, and the pace that they are ranked by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mlpack.engine import choice
from mlpack.engine.judge import with_options
from mlpack.engine.run import run
from mlpack.engine.validate import options_of
from mlpack.measure.disturbance import crashes

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.engine.candidates import Candidate
    from mlpack.engine.context import Context

# Two launches resolve no less than this; what is nearer is decided by the final comparison and its interval.
DOUBT = 1.1
_SCREENING = {"launches": 2, "seconds": 0.2, "components": False, "needed": "none"}


def screened(tried: list[Candidate], recipe: Recipe, context: Context, also: Container[int] = ()) -> list[Candidate]:
    """The candidates that are left with their median ms by batch size, all timed in turns; none off target.

    `also` are places of lost ones to be timed all the same. What cannot be timed is lost.
    """
    places = [index for index, each in enumerate(tried) if not each.lost or index in also]
    if not context.target.here or not places:
        return tried
    running = {f"c{number}": tried[index].model for number, index in enumerate(places)}
    key = choice.key([model.fingerprint() for model in running.values()], context)
    p50: dict[str, dict[str, float]] | None = choice.recall(context.cache, key)
    refused: dict[str, str] = {}
    if p50 is None or p50.keys() != running.keys() or context.fresh:
        p50, refused = _in_turns(running, recipe, context)
        if not refused:
            choice.remember(context.cache, key, p50)
    found = list(tried)
    for index, label in zip(places, running, strict=True):
        each = tried[index]
        if label in p50:
            found[index] = replace(each, facts={**each.facts, "p50": p50[label]})
        elif not each.lost:
            found[index] = each.out(refused[label])
    return found


def _in_turns(
    models: dict[str, Model], recipe: Recipe, context: Context
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Median ms by model and batch size, and why the others cannot be timed.

    Raises:
        StageFailed: none can.
    """
    first, *others = models
    done = run(
        options_of(with_options(recipe.latency, _SCREENING)),
        models[first],
        context,
        rivals={each: models[each] for each in others},
        label=f"timing {len(models)} candidates in turns",
    )

    def name(contender: str) -> str:
        return contender if contender in models else first

    for contender, times in done.report.metrics["crashed"].items():
        model = models[name(contender)]
        context.reporter.warn(f"{model.numerics} in {model.backend}: {crashes(times)}")
    p50: dict[str, dict[str, float]] = {}
    for row in done.report.tables["latency"]:
        p50.setdefault(name(row["contender"]), {})[str(row["batch"])] = row["p50"]
    return p50, {name(contender): why for contender, why in done.report.metrics["refused"].items()}


def ranking(recipe: Recipe) -> Callable[[Candidate], tuple[float, ...]]:
    """What the best candidate has least of: ms, or bytes and then ms."""

    def by_size(candidate: Candidate) -> tuple[float, ...]:
        return (candidate.model.size_bytes, pace(candidate))

    def by_pace(candidate: Candidate) -> tuple[float, ...]:
        return (pace(candidate),)

    return by_size if recipe.smallest else by_pace


def pace(candidate: Candidate) -> float:
    """Geometric mean of the medians over batch sizes, ms: how fast a candidate is. Infinite: not timed."""
    p50 = cast("dict[str, float] | None", candidate.facts.get("p50"))
    if not p50:
        return math.inf
    return math.exp(sum(math.log(ms) for ms in p50.values()) / len(p50))
