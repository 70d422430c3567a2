"""Training: the options that every stage which trains has."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mlpack.core.words import Frozen


class Training(Frozen):
    """How a module learns. A stage inherits these fields beside those of its own."""

    # Two runs that differ in these alone end with the same weights.
    of_no_effect: ClassVar[frozenset[str]] = frozenset({"checkpoint_s"})
    # What comes before their names in --set.
    set_by: ClassVar[str]

    epochs: int = Field(default=10, ge=1, description="passes over the training rows at the most")
    batch: int = Field(default=32, ge=1, description="rows of a step")
    learning_rate: float = Field(default=3e-4, gt=0, description="at its highest: after the warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's; biases and norms have none")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    clip: float = Field(default=1.0, gt=0, description="largest L2 norm of a step's gradients")
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the training rows that only tell when to stop (1,000 at most)"
    )
    patience: int = Field(
        default=8, ge=0, description="evaluations without a better held-out loss after which it stops; 0: never"
    )
    batch_norm: Literal["train", "frozen"] = Field(
        default="train",
        description="train: statistics of the batch, which are learnt anew; frozen: those it came with, as in batches "
        "of one row, which have none",
    )
    seconds: float | None = Field(
        default=None, gt=0, description="of training; the schedule is cut to what that allows, the best so far is taken"
    )
    checkpoint_s: float = Field(default=30.0, ge=0, description="seconds between checkpoints at the least")
