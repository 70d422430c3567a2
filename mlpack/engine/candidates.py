"""Candidates: every model that a recipe's steps can make, each step tried in all the ways that it proposes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

from mlpack.core.wording import count
from mlpack.engine.run import run
from mlpack.engine.validate import changes_original, check_takes, options_of, stage_of
from mlpack.engine.workers import Place, Task, work_off
from mlpack.errors import MissingLibrary, MlpackError, StageFailed, UsageError
from mlpack.quantization.rules import rules_for
from mlpack.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from mlpack.core.model import Model, Quantization
    from mlpack.core.recipe import Step
    from mlpack.core.stage import Stage
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.workers import Workers


@dataclass(frozen=True)
class Candidate:
    """A model with the stages that made it. `lost` says why it is out of the running, where it is.

    `given` is what the first of the stages was given; None: the original.
    """

    model: Model
    steps: tuple[Done, ...] = ()
    choices: tuple[str, ...] = ()
    lost: str | None = None
    facts: dict[str, object] = field(default_factory=dict)
    given: Model | None = None

    @property
    def label(self) -> str:
        """What was done before the export, numerics, how they were made, the backend: what tables call it."""
        made = self.model.quantization
        how = ""
        if made is not None and made.method not in {"cast", ""}:
            how = f" {made.method}" + (f" ({', '.join(told)})" if (told := _told(made)) else "")
        options = self.model.backend_options
        by = f" by {options.provider.name}" if options.provider else ""
        fewer = f" · {count(options.most_threads, 'thread')}" if options.most_threads else ""
        changed = " + ".join(done.stage for done in self.steps if changes_original(STAGES[done.stage]))
        before = f"{changed} · " if changed else ""
        return f"{before}{self.model.numerics}{how} · {self.model.backend or '–'}{by}{fewer}"

    def out(self, why: str) -> Candidate:
        """This candidate, lost for this reason."""
        return replace(self, lost=why)

    def failed(self, error: MlpackError) -> Candidate:
        """This candidate, lost by this error."""
        return replace(self, lost=error.message, facts={**self.facts, "error": error})


def _told(made: Quantization) -> list[str]:
    """What tells one way to quantize from another."""
    details = made.details
    told = [details.get("operators", "")] if made.method == "static" else []
    if made.method == "static" and details.get("calibration_method", "minmax") != "minmax":
        told.append(details["calibration_method"])
    if details.get("bias_correction"):
        told.append("biases corrected")
    if details.get("block"):
        told.append(f"blocks of {details['block']}")
    if details.get("wide"):
        # Targets whose weights stand in blocks behind a DequantizeLinear have none of eight bits.
        wide = "float" if rules_for(made.rules).explicit_weights else "int8"
        told.append(f"{count(len(details['wide']), 'node')} in {wide}")
    if details.get("train") == "always":
        told.append("trained")
    if details.get("exclude"):
        told.append(f"without {count(len(details['exclude']), 'node')}")
    return [each for each in told if each]


def candidates(
    lists: Sequence[tuple[Step, ...]],
    model: Model,
    context: Context,
    deadline: Deadline,
    workers: Workers,
    wanted: Callable[[Candidate], bool],
) -> list[Candidate]:
    """All candidates of these lists of steps from this model, in the order in which they are proposed.

    A stage that fails on one of several ways makes a lost candidate; a stage that fails on the only way there
    is raises. Once the deadline is over no more are made than the first that is wanted, where there is none yet.

    Raises:
        MlpackError: what the only way failed with.
    """
    tree = _Tree(context)
    work_off(
        chain.from_iterable(tree.ways((at,), Candidate(model, given=model), steps) for at, steps in enumerate(lists)),
        tree.grow,
        lambda: deadline.over() and any(wanted(each) for each in tree.found.values()),
        workers,
        context,
    )
    found = [tree.found[place] for place in sorted(tree.found)]
    raise_if_lost(found)
    return found


def raise_if_lost(found: Sequence[Candidate]) -> None:
    """Raise the first error where nothing is left."""
    if all(candidate.lost for candidate in found):
        failures = [candidate.facts["error"] for candidate in found if "error" in candidate.facts]
        if failures and isinstance(failures[0], MlpackError):
            raise failures[0]


def follow(candidate: Candidate, place: int, stage: Stage, context: Context) -> Candidate:
    """The candidate made again with another stage in this place, and the same ones after it."""
    before = candidate.steps[:place]
    model = before[-1].model if before else candidate.given or context.baseline
    assert model is not None
    grown = Candidate(model, before, given=candidate.given)
    for each in (stage, *(stage_of(done) for done in candidate.steps[place + 1 :])):
        try:
            grown = _with(grown, each, context)
        except UsageError as error:
            grown = _failed(grown, each, error)
        if grown.lost:
            break
    return grown


class _Tree:
    """The candidates as a tree of ways through the steps: a place says at each step which way was taken."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.found: dict[Place, Candidate] = {}
        self._open: dict[Place, tuple[Candidate, tuple[Step, ...]]] = {}

    def ways(self, place: Place, candidate: Candidate, steps: tuple[Step, ...]) -> Iterator[tuple[Place, Task]]:
        """The next stages to be run on this candidate; one without any, or that is lost, is found."""
        if not steps or candidate.lost:
            self.found[place] = candidate
            return
        step, *rest = steps
        if step.optional:
            yield from self.ways((*place, 0), candidate, tuple(rest))
        stage = options_of(step)
        check_takes(stage, candidate.model.format)
        try:
            proposed = stage.propose(candidate.model, self.context.target)
        except UsageError as error:
            self.found[*place, 1] = _failed(candidate, stage, error)
            return
        for way, each in enumerate(proposed, 1):
            self._open[*place, way] = candidate, tuple(rest)
            yield (*place, way), Task(each, candidate.model, _label(each))

    def grow(self, place: Place, ran: Future[Done], task: Task) -> Iterator[tuple[Place, Task]]:
        """What follows from a stage that has ended."""
        candidate, rest = self._open.pop(place)
        try:
            done = ran.result()
        except (StageFailed, MissingLibrary) as error:
            self.found[place] = _failed(candidate, task.stage, error)
            return
        yield from self.ways(place, _after(candidate, done), rest)


def _with(candidate: Candidate, stage: Stage, context: Context) -> Candidate:
    try:
        return _after(candidate, run(stage, candidate.model, context, label=_label(stage)))
    except StageFailed as error:
        return _failed(candidate, stage, error)


def _after(candidate: Candidate, done: Done) -> Candidate:
    return replace(candidate, model=done.model, steps=(*candidate.steps, done))


def _failed(candidate: Candidate, stage: Stage, error: MlpackError) -> Candidate:
    return replace(candidate, choices=(*candidate.choices, _label(stage))).failed(error)


def _label(stage: Stage) -> str:
    """The stage and what sets this variant apart from the stage's defaults."""
    fields = type(stage).model_fields
    set_apart = [
        str(value)
        for name, value in stage
        if (fields[name].is_required() or value != fields[name].default) and isinstance(value, str)
    ]
    return " ".join([stage.name, *set_apart])
