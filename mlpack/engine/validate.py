"""Recipes checked against the stages that they name: spelling, types, formats, target."""

from __future__ import annotations

import difflib

from pydantic import ValidationError

from mlpack.core.recipe import Recipe, Step
from mlpack.core.stage import Stage
from mlpack.core.target import Target
from mlpack.errors import RecipeError, UnsupportedNumerics, UsageError
from mlpack.stages import STAGES


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
        raise explained(error, f"step {step.stage!r}", list(kind.model_fields)) from error


def explained(error: ValidationError, where: str, known: list[str]) -> RecipeError:
    """The first complaint of pydantic in one line, with the nearest right spelling of an unknown key."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        wrong = str(first["loc"][-1])
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return RecipeError(f"{where} has an unknown key {wrong!r}", hint)
    return RecipeError(f"{where}, {place}: {first['msg']}", f"it got {first['input']!r}")


def check(recipe: Recipe, target: Target) -> list[Stage]:
    """All stages of a recipe, once spelling, formats along the list and the target's abilities hold.

    Raises:
        RecipeError: a step is unknown, or takes a format that the step before it does not give.
        UnsupportedNumerics: the target lacks what a step asks for.
    """
    stages = [options_of(step) for step in recipe.steps]
    for stage in (*stages, options_of(recipe.accuracy), options_of(recipe.latency)):
        reason = stage.refusal(target)
        if reason:
            raise UnsupportedNumerics(f"{stage.name}: {reason}", f"mlpack targets {target.name}")
    given = None
    for step, stage in zip(recipe.steps, stages, strict=True):
        if given is not None and stage.accepts and given not in stage.accepts:
            raise RecipeError(
                f"step {step.stage!r} takes {' or '.join(stage.accepts)} and would be given {given}",
                f"put a step that gives {stage.accepts[0]} before it",
            )
        given = stage.gives or given
    return stages
