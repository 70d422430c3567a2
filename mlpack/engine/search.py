"""Search: make the candidates, keep the fastest inside the limit on the choosing rows, confirm it once.

Where a candidate is fast and misses the limit, milder forms of it are tried: see `relent`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, cast

from mlpack.engine.candidates import Candidate, candidates, raise_if_lost
from mlpack.engine.fewer_threads import with_fewer_threads
from mlpack.engine.judge import Found, Judge, safe
from mlpack.engine.relent import milder_forms
from mlpack.engine.screening import DOUBT, pace, ranking, screened
from mlpack.engine.validate import lists_for
from mlpack.engine.workers import Place, Task, work_off
from mlpack.errors import GateFailed, StageFailed
from mlpack.measure.limits import smallest_limit

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.workers import Workers
    from mlpack.measure.limits import Comparison, Limit

MOSTLY = 0.5
_MOST_RELENTED = 3
_LATE = "not judged: the time limit was over"


def search(
    recipe: Recipe,
    limit: Limit | None,
    context: Context,
    deadline: Deadline,
    workers: Workers,
    start: Model | None = None,
) -> Found:
    """Run the recipe's steps in every way that they propose; choose on the choosing rows; confirm.

    The steps begin with `start`, with the original where that is None.

    Candidates are made and scored side by side, as many as there are workers; what is timed is timed alone. Once the
    deadline is over nothing further is tried: the best so far is confirmed. What was promised is waited for.

    Raises:
        GateFailed: no candidate holds the promise and the limit; the hint says what would.
        ModelError: the original answers NaN on the data.
    """
    assert context.baseline is not None
    judge = Judge(recipe, limit, context)
    lists = lists_for(recipe, context.target, context.baseline)
    tried = candidates(lists, start or context.baseline, context, deadline, workers, partial(_wanted, recipe))
    tried = _judged(tried, judge, deadline, workers)
    lossy = [at for at, each in enumerate(tried) if judge.lossy(each)] if judge.relents(tried) else []
    tried = screened(tried, recipe, context, also=lossy)
    # What could not be timed cannot be diagnosed either.
    lossy = [at for at in lossy if "p50" in tried[at].facts or not context.target.here]
    milder = _milder([tried[at] for at in lossy], tried, judge, deadline)
    if any(not each.lost for each in milder):
        milder = screened([*tried, *milder], recipe, context)[len(tried) :]
    tried += milder
    tried += with_fewer_threads(tried, judge, deadline)
    parent = _fastest([each for each in tried if not each.lost and each.model.numerics == context.baseline.numerics])
    winner, tried = _chosen(tried, parent, judge, deadline)
    return judge.confirmed(winner, parent, tried)


def _wanted(recipe: Recipe, candidate: Candidate) -> bool:
    """Whether it is not lost, and mostly in the numerics that were promised."""
    promised = recipe.promise is None or (
        candidate.model.numerics == recipe.promise and candidate.model.numerics_share >= MOSTLY
    )
    return promised and not candidate.lost


def _judged(made: list[Candidate], judge: Judge, deadline: Deadline, workers: Workers) -> list[Candidate]:
    """All with their accuracy; once the deadline is over, those after the first that is wanted are passed over."""
    found = {at: each for at, each in enumerate(made) if each.lost}
    tasks = [((at,), judge.task(each)) for at, each in enumerate(made) if at not in found]

    def judged(place: Place, ran: Future[Done], task: Task) -> tuple[()]:
        del task
        (at,) = place
        try:
            found[at] = judge.judged(made[at], ran.result())
        except StageFailed as error:
            found[at] = made[at].failed(error)
        return ()

    def enough() -> bool:
        return deadline.over() and any(_wanted(judge.recipe, each) for each in found.values())

    work_off(tasks, judged, enough, workers, judge.context)
    told = [found.get(at, each.out(_LATE)) for at, each in enumerate(made)]
    if not any(each.facts.keys() & {"comparison", "nonfinite"} for each in told):
        raise_if_lost(told)
    return told


def _milder(lossy: list[Candidate], tried: list[Candidate], judge: Judge, deadline: Deadline) -> list[Candidate]:
    """Milder forms of what misses the limit and is better than all that holds it; of each the mildest that holds."""
    found: list[Candidate] = []
    rank = ranking(judge.recipe)
    best = min((rank(each) for each in tried if judge.keeps(each)), default=(math.inf,))
    for candidate in sorted(lossy, key=lambda each: (*rank(each), judge.excess(each)))[:_MOST_RELENTED]:
        if rank(candidate) > best or deadline.over():
            break
        held: int | None = None
        try:
            for form in milder_forms(candidate, judge.excess, judge.choosing, judge.context):
                if judge.holds(form):
                    if held is not None:
                        found[held] = found[held].out(f"holds, and so does a form with more in {form.model.numerics}")
                    held = len(found)
                found.append(form)
                if deadline.over():
                    judge.context.reporter.warn(f"the time limit of {deadline.limit} is over: the best so far is taken")
                    return found
        except StageFailed as error:
            judge.context.reporter.warn(f"no further milder forms of {candidate.label}: {error.message}")
    return found


def _fastest(those: list[Candidate]) -> Candidate | None:
    return min(those, key=pace, default=None)


def _chosen(
    tried: list[Candidate], parent: Candidate | None, judge: Judge, deadline: Deadline
) -> tuple[Candidate, list[Candidate]]:
    """The best that keeps the promise; every other one with the reason why it lost."""
    recipe = judge.recipe
    if recipe.promise is not None or recipe.smallest:
        tried = [_held_to(each, recipe.promise, parent) for each in tried]
    left = [each for each in tried if not each.lost]
    if not left:
        raise _nothing_left(tried, judge, deadline)
    sure = [each for each in left if safe(each)] or left
    rank = ranking(recipe)
    winner = min(sure, key=lambda each: (*rank(each), _drop(each)))
    return winner, [
        each if each is winner or each.lost else each.out(_why(each, winner, sure, smallest=recipe.smallest))
        for each in tried
    ]


def _held_to(candidate: Candidate, promise: str | None, parent: Candidate | None) -> Candidate:
    if candidate.lost:
        return candidate
    if promise is not None and candidate.model.numerics != promise:
        return candidate.out(f"is not {promise}")
    if promise is not None and candidate.model.numerics_share < MOSTLY:
        return candidate.out(f"only {candidate.model.numerics_share:.0%} of its compute is {promise}")
    if parent is not None and pace(candidate) > DOUBT * pace(parent):
        return candidate.out(f"is slower than {parent.label} ({pace(candidate) / pace(parent):.2f} × its time)")
    return candidate


def _drop(candidate: Candidate) -> float:
    comparison = cast("Comparison | None", candidate.facts.get("comparison"))
    return comparison.drop if comparison else 0.0


def _why(candidate: Candidate, winner: Candidate, sure: list[Candidate], *, smallest: bool) -> str:
    if candidate not in sure:
        return "the choosing rows leave its accuracy in doubt"
    if smallest and candidate.model.size_bytes > winner.model.size_bytes:
        return f"larger: {candidate.model.size_bytes / winner.model.size_bytes:.2f} × the winner's size"
    if math.isinf(pace(winner)):
        return "drops more"
    return f"slower: {pace(candidate) / pace(winner):.2f} × the winner's time"


def _nothing_left(tried: list[Candidate], judge: Judge, deadline: Deadline) -> GateFailed:
    """Exit 5: what each attempt at the promise failed on, and the best model that there is."""
    recipe = judge.recipe
    promised = [each for each in tried if recipe.promise is None or each.model.numerics == recipe.promise]
    unmade = "; ".join(dict.fromkeys(each.lost for each in tried if each.lost and "error" in each.facts))
    reasons = "; ".join(f"{each.label}: {each.lost}" for each in promised) or unmade or "no candidate could be made"
    if deadline.over():
        reasons += f" (the time limit of {deadline.limit} was over)"
    others = [each for each in tried if each.lost == f"is not {recipe.promise}"]
    best = _fastest([each for each in others if safe(each)] or others)
    if recipe.promise is None or best is None:
        return GateFailed(f"no candidate holds the limit: {reasons}", _smallest(promised, judge))
    offer = f"the fastest that does is {best.label}"
    return GateFailed(
        f"--{recipe.promise} cannot be kept: {reasons}",
        f"{offer}: leave --{recipe.promise} out and mlpack takes it. {_smallest(promised, judge)}".strip(),
    )


def _smallest(those: list[Candidate], judge: Judge) -> str:
    """The limit that would let the nearest one pass; one that was scored in part is scored to the end for it."""
    measured = [each for each in those if "comparison" in each.facts and "over the limit" in (each.lost or "")]
    if not measured:
        return ""
    nearest = min(measured, key=_drop)
    if nearest.facts.get("scored_in_part"):
        try:
            nearest = judge.judged(nearest, judge.score(nearest.model, "choosing"))
        except StageFailed:
            return ""
    return f"Or allow more: --max-drop {smallest_limit(cast('Comparison', nearest.facts['comparison']))}"
