"""The steps that train: which flags ask for them, and how much of a time limit is theirs."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from mlpack.core.recipe import Step
from mlpack.errors import UsageError
from mlpack.stages import STAGES
from mlpack.training.options import Training

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.core.recipe import DataSpec, Recipe

_DISTILL = "distill"
# The rest is for making, scoring and timing what was trained.
_SHARE_OF_LIMIT = 0.5
# A module of random weights learns longer and in larger steps than one that knew it all before.
_FROM_NOTHING = {"epochs": 60, "learning_rate": 1e-3}


def trained_steps(data: DataSpec, *, distill: bool, student: str | None, changed: bool) -> tuple[Step, ...]:
    """What comes before the export where something is to be trained; what was `changed` is, where there is data for it.

    Raises:
        UsageError: there is nothing that could learn.
    """
    if student is not None and changed:
        raise UsageError("--student is a smaller module by itself, and --prune makes one", "give one of them")
    if changed:
        return (recovery(data),) if distill or data.train is not None else ()
    if not distill and student is None:
        return ()
    if student is None:
        raise UsageError(
            "--distill: the original has nothing to learn from its own answers",
            "make it smaller (--prune 30%), or name a smaller module that learns them: --student file.py:function",
        )
    return (recovery(data, student),)


def recovery(data: DataSpec, student: str | None = None) -> Step:
    """The step in which a changed model, or a smaller one, learns to answer as the original."""
    options: dict[str, Any] = {"student": student, **_FROM_NOTHING} if student is not None else {}
    if data.output is not None:
        options["output"] = data.output
    return Step(stage=_DISTILL, options=options)


def check_trains(recipe: Recipe) -> None:
    """Whether training data that a flag gives is used.

    Raises:
        UsageError: no step trains.
    """
    if not any(_trains(step) for step in _steps(recipe)):
        raise UsageError(
            "--train: no step trains on it",
            "what learns from it: --prune 30%; a smaller module of yours (--student); --int8 that misses its limit",
        )


def timed(recipe: Recipe) -> Recipe:
    """The recipe in which half of its time limit is shared by the steps that train, where they do not say themselves.

    Raises:
        UsageError: the limit is no length of time.
    """
    from mlpack.engine.deadline import seconds

    if recipe.time_limit is None:
        return recipe
    lists = (recipe.steps, *recipe.beside)
    most = max(sum(_trains(step) for step in steps) for steps in lists)
    if most == 0:
        return recipe
    each = _SHARE_OF_LIMIT * seconds(recipe.time_limit) / most

    def limited(steps: Sequence[Step]) -> tuple[Step, ...]:
        return tuple(
            step.model_copy(update={"options": _limited(step, each)}) if _trains(step) else step for step in steps
        )

    return recipe.model_copy(
        update={"steps": limited(recipe.steps), "beside": tuple(limited(steps) for steps in recipe.beside)}
    )


def _steps(recipe: Recipe) -> list[Step]:
    return list(chain(recipe.steps, *recipe.beside))


def _limited(step: Step, seconds: float) -> dict[str, Any]:
    """The options of a step that trains, or of one that may train what it makes, with seconds where it has none."""
    if issubclass(STAGES[step.stage], Training):
        return {"seconds": seconds, **step.options}
    return {**step.options, "training": {"seconds": seconds, **step.options.get("training", {})}}


def _trains(step: Step) -> bool:
    """Whether it is for training, or may come to that."""
    from mlpack.engine.validate import options_of

    return options_of(step).trains()
