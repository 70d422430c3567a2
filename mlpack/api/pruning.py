"""The step that prunes: what asks for it, and what is said where its result misses the limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlpack.core.recipe import Step
from mlpack.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from mlpack.core.recipe import DataSpec, Recipe

_PRUNE = "prune"
_UNTRAINED = "it was pruned and not trained afterwards, which --distill does (on --train DATA, which is not in --data)"
_TRAINED = "it was pruned: prune less, or train longer"


def pruned_steps(share: str | None, data: DataSpec, *, force: bool) -> tuple[Step, ...]:
    """The step that takes this share of the module's FLOPs, or none.

    Raises:
        UsageError: it is no percentage between 0 and 100, or there is only the force of it.
    """
    if share is None:
        if force:
            raise UsageError("--force is for masks, and nothing is pruned", "--prune 50% --set prune.pattern=2:4")
        return ()
    try:
        amount = float(share.removesuffix("%")) / 100 if share.endswith("%") else math.nan
    except ValueError:
        amount = math.nan
    if not 0 < amount < 1:
        raise UsageError(
            f"--prune {share}: how much of its work is the model to lose? More than 0% and less than 100%",
            "--prune 30%",
        )
    options: dict[str, Any] = {"amount": round(amount, 6), **({"force": True} if force else {})}
    if data.train is not None and data.output is not None:
        # Labels of training rows tell what a unit is worth.
        options["output"] = data.output
    return (Step(stage=_PRUNE, options=options),)


def told_of_pruning(error: GateFailed, recipe: Recipe) -> GateFailed:
    """The same error; where the model was pruned its hint says first what makes a pruned one whole again."""
    stages = [step.stage for step in recipe.steps]
    if _PRUNE not in stages:
        return error
    # A step right behind it that is no export trains.
    told = _UNTRAINED if stages[stages.index(_PRUNE) + 1] == "export" else _TRAINED
    return GateFailed(error.message, f"{told}. {error.hint}".strip())
