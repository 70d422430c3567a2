"""Screening: a quick timing of all candidates in turns, and the pace that they are ranked by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mlpack.engine import choice
from mlpack.engine.judge import with_options
from mlpack.engine.run import run
from mlpack.engine.validate import options_of
from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.engine.candidates import Candidate
    from mlpack.engine.context import Context

# Two launches resolve no less than this; what is nearer is decided by the final comparison and its interval.
DOUBT = 1.1
_SCREENING = {"launches": 2, "seconds": 0.2, "components": False}


def screened(tried: list[Candidate], recipe: Recipe, context: Context, also: Container[int] = ()) -> list[Candidate]:
    """The candidates that are left with their median ms by batch size, all timed in turns; none off target.

    `also` are places of lost ones to be timed all the same. What cannot be timed is lost.
    """
    running = {f"c{index}": each for index, each in enumerate(tried) if not each.lost or index in also}
    if not context.target.here or not running:
        return tried
    key = choice.key([each.model.fingerprint() for each in running.values()], context)
    p50: dict[str, dict[str, float]] | None = choice.recall(context.cache, key)
    if p50 is None or context.fresh:
        p50, refused = _in_turns({label: each.model for label, each in running.items()}, recipe, context)
        if not refused:
            choice.remember(context.cache, key, p50)
        tried = [
            each.out(refused[f"c{index}"]) if f"c{index}" in refused and not each.lost else each
            for index, each in enumerate(tried)
        ]
    return [
        replace(each, facts={**each.facts, "p50": p50[f"c{index}"]}) if f"c{index}" in p50 else each
        for index, each in enumerate(tried)
    ]


def _in_turns(
    models: dict[str, Model], recipe: Recipe, context: Context
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Median ms by model and batch size, and why the others cannot be timed.

    Raises:
        StageFailed: none can.
    """
    first, *others = models
    step = with_options(recipe.latency, _SCREENING)
    label = f"timing {len(models)} candidates in turns"
    try:
        done = run(
            options_of(step), models[first], context, rivals={each: models[each] for each in others}, label=label
        )
    except StageFailed as error:
        if not others:
            raise
        p50, refused = _in_turns({each: models[each] for each in others}, recipe, context)
        return p50, {first: error.message, **refused}
    p50 = {}
    for row in done.report.tables["latency"]:
        contender = first if row["contender"] == "optimized" else row["contender"]
        p50.setdefault(contender, {})[str(row["batch"])] = row["p50"]
    return p50, done.report.metrics["refused"]


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
