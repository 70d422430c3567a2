"""Recipes checked against the stages that they name: spelling, types, formats, target."""

from __future__ import annotations

import difflib
from itertools import chain
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from mlpack.core.model import Format, Model
from mlpack.core.recipe import Recipe, Step
from mlpack.core.stage import Stage
from mlpack.core.target import Target
from mlpack.errors import RecipeError, UnsupportedNumerics, UsageError
from mlpack.stages import STAGES

if TYPE_CHECKING:
    from mlpack.engine.cache import Done


def options_of(step: Step) -> Stage:
    """The stage that a step names, with its options.

    Raises:
        RecipeError: unknown stage or option (with the nearest right spelling), or a value out of bounds.
    """
    try:
        kind = STAGES[step.stage]
    except UsageError as error:
        raise RecipeError(error.message, error.hint) from error
    try:
        return kind.model_validate(step.options)
    except ValidationError as error:
        raise explained(error, f"step {step.stage!r}", kind) from error


def stage_of(done: Done) -> Stage:
    """The stage that was run."""
    return STAGES[done.stage].model_validate(done.options)


def explained(error: ValidationError, where: str, kind: type[BaseModel]) -> RecipeError:
    """The first complaint of pydantic in one line, with the nearest right spelling of an unknown key."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        wrong = str(first["loc"][-1])
        known = _fields_at(kind, first["loc"][:-1])
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return RecipeError(f"{where} has an unknown key {wrong!r}", hint)
    return RecipeError(f"{where}, {place}: {first['msg']}", f"it got {first['input']!r}")


def _fields_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that a recipe may have at this place: those of the model that the fields lead to."""
    for part in place:
        field = kind.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            kind = field.annotation
    return list(kind.model_fields)


def check(recipe: Recipe, target: Target) -> list[Stage]:
    """The stages of a recipe's steps, once spelling, formats along each list and the target's abilities hold.

    Lists beside the steps are for some targets only: on the others they are left out.

    Raises:
        RecipeError: a step is unknown, takes a format that the step before it does not give, or has options of which
            some would be ignored.
        UnsupportedNumerics: the target lacks what a step asks for.
    """
    stages, *others = [_chained(steps) for steps in (recipe.steps, *recipe.beside)]
    measuring = [options_of(recipe.accuracy), options_of(recipe.latency)]
    for stage in (*stages, *measuring, *chain.from_iterable(others)):
        clash = stage.clash()
        if clash:
            raise RecipeError(f"{stage.name}: {clash}", "leave one of them out")
    for stage in (*stages, *measuring, *filter(changes_original, chain.from_iterable(others))):
        reason = stage.refusal(target)
        if reason:
            raise UnsupportedNumerics(f"{stage.name}: {reason}", f"mlpack targets {target.name}")
    return stages


def changes_original(stage: Stage | type[Stage]) -> bool:
    """Whether it makes another module of the original, before any export: somebody asked for that."""
    return stage.gives == "torch"


def _chained(steps: tuple[Step, ...]) -> list[Stage]:
    """The stages of a list of steps, each of which takes what the one before gives."""
    stages = [options_of(step) for step in steps]
    if not any(stage.chooses_backend for stage in stages):
        choosing = [name for name in STAGES.names() if STAGES[name].chooses_backend]
        raise RecipeError("no step says which backend runs the model", f"end the steps with {' or '.join(choosing)}")
    given: Format | None = None
    for stage in stages:
        if given is not None:
            check_takes(stage, given)
        given = stage.gives or given
    return stages


def lists_for(recipe: Recipe, target: Target, baseline: Model) -> list[tuple[Step, ...]]:
    """The recipe's steps, and of the lists beside them those that this target and this model are for.

    Raises:
        RecipeError: the original is no module that could be changed, and a step is to change it.
    """
    return [recipe.steps, *(steps for steps in recipe.beside if _fits(steps, target, baseline))]


def _fits(steps: tuple[Step, ...], target: Target, baseline: Model) -> bool:
    stages = [options_of(step) for step in steps]
    if changes_original(stages[0]):
        check_takes(stages[0], baseline.format)
    return baseline.format in stages[0].accepts and not any(stage.refusal(target) for stage in stages)


def check_takes(stage: Stage, given: Format) -> None:
    """Whether the stage takes models of this format.

    Raises:
        RecipeError: it does not.
    """
    if stage.accepts and given not in stage.accepts:
        wanted = stage.accepts[0]
        # No step makes the code that a file was once exported from.
        makes = any(STAGES[name].gives == wanted and not changes_original(STAGES[name]) for name in STAGES.names())
        raise RecipeError(
            f"step {stage.name!r} takes {' or '.join(stage.accepts)} and would be given {given}",
            f"put a step that gives {wanted} before it" if makes else f"hand the model in as {wanted} has it",
        )
