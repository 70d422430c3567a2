"""Relent: a fast candidate that misses the limit is made again in milder forms, until one holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlpack.core.report import Report
from mlpack.core.stage import BEFORE
from mlpack.engine import choice
from mlpack.engine.candidates import follow
from mlpack.engine.run import run
from mlpack.engine.validate import stage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlpack.core.model import Model
    from mlpack.core.stage import Stage
    from mlpack.engine.candidates import Candidate
    from mlpack.engine.context import Context


def can_relent(candidate: Candidate) -> bool:
    """Whether some stage that made it knows milder forms of itself."""
    return _place(candidate) is not None


def milder_forms(
    candidate: Candidate,
    excess: Callable[[Candidate], float],
    judge: Callable[[Candidate], Candidate],
    context: Context,
) -> Iterator[Candidate]:
    """Each milder form of the last stage that knows some, judged; all later stages are as they were.

    What the stage has to know is measured first, on this machine: each form carries it as the fact `diagnosis`.
    `excess` is a judged candidate's drop over the allowed one. Where the stage was given weights that stay on the disk
    there is none: all layers would have to run in float, over and over.
    """
    place = _place(candidate)
    assert place is not None
    stage = stage_of(candidate.steps[place])
    before = _before(candidate, place, context)
    if before.on_disk:
        context.reporter.warn(
            f"no milder form of {candidate.label} is looked for: that would run the float weights, which stay on the "
            f"disk; layers of your own choice are milder by --set {stage.name}.wide=[NODE]"
        )
        return
    reports = _diagnosed(stage, candidate.model, before, context)
    proposals = stage.milder(reports, excess(candidate))
    proposed = next(proposals, None)
    while proposed is not None:
        form = judge(follow(candidate, place, proposed, context))
        form = replace(form, facts={**form.facts, "diagnosis": reports})
        yield form
        try:
            proposed = proposals.send(excess(form))
        except StopIteration:
            return


def _place(candidate: Candidate) -> int | None:
    """Which of its stages is the last that can be asked."""
    places = [place for place, done in enumerate(candidate.steps) if stage_of(done).diagnosis()]
    return places[-1] if places else None


def _before(candidate: Candidate, place: int, context: Context) -> Model:
    """What that stage was given, to be run as the candidate is."""
    given = candidate.steps[place - 1].model if place else candidate.given or context.baseline
    assert given is not None
    made = candidate.model
    return given.model_copy(update={"backend": made.backend, "backend_options": made.backend_options})


def _diagnosed(stage: Stage, model: Model, before: Model, context: Context) -> dict[str, Report]:
    """The reports by stage. What was timed once on this machine is kept: a repeated search goes the same way."""
    reports = {}
    for each in stage.diagnosis():
        if each.timing and not context.target.here:
            continue
        key = choice.key([each.name, model.fingerprint(), before.fingerprint()], context)
        kept = choice.recall(context.cache, key) if each.timing and not context.fresh else None
        if kept is not None:
            reports[each.name] = Report.model_validate(kept)
            continue
        label = f"{each.name} of {model.numerics} · {model.backend}"
        reports[each.name] = run(each, model, context, rivals={BEFORE: before}, label=label).report
        if each.timing:
            choice.remember(context.cache, key, reports[each.name].model_dump(mode="json"))
    return reports
