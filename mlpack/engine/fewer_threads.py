"""Fewer threads: the fastest candidates again with half as many, a quarter, down to one, kept where that is faster.

The threads of a small model wait for each other longer than they compute.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mlpack.core.wording import count
from mlpack.engine.candidates import follow
from mlpack.engine.screening import DOUBT, pace, ranking, screened
from mlpack.engine.validate import stage_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.engine.candidates import Candidate
    from mlpack.engine.context import Context
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.judge import Judge

_MOST = 3


def with_fewer_threads(tried: list[Candidate], judge: Judge, deadline: Deadline) -> list[Candidate]:
    """Forms of the fastest candidates that hold; those that are clearly faster are judged, the others are out.

    None unless the search is free to choose: `auto`, and no number of threads was asked for.
    """
    context = judge.context
    free = judge.recipe.auto and judge.recipe.threads is None and context.target.here
    if not free or deadline.over():
        return []
    best = sorted((each for each in tried if judge.keeps(each)), key=ranking(judge.recipe))[:_MOST]
    made = [(at, form) for at, each in enumerate(best) for form in _forms(each, context)]
    if not made:
        return []
    again = screened([*best, *(form for _, form in made)], judge.recipe, context)
    timed = zip(made, again[len(best) :], strict=True)
    return [
        judge.choosing(_beside(best[at], again[at], form, context)) for (at, _), form in timed if not again[at].lost
    ]


def _forms(candidate: Candidate, context: Context) -> Iterator[Candidate]:
    """The candidate made again by the last of its stages that knows forms with fewer threads."""
    for place in reversed(range(len(candidate.steps))):
        if stages := stage_of(candidate.steps[place]).fewer_threads(context.threads):
            yield from (follow(candidate, place, stage, context) for stage in stages)
            return


def _beside(before: Candidate, again: Candidate, form: Candidate, context: Context) -> Candidate:
    """The form with medians on the scale of the first timing: those of then times the ratio measured side by side."""
    if form.lost:
        return form
    then, now, own = (cast("dict[str, float]", each.facts["p50"]) for each in (before, again, form))
    scaled = replace(form, facts={**form.facts, "p50": {size: then[size] * own[size] / now[size] for size in own}})
    if pace(form) * DOUBT > pace(again):
        return scaled.out(f"no faster than with {count(context.threads, 'thread')}")
    return scaled
