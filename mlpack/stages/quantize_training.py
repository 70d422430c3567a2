"""How quantize trains the graph that it made: the options of every training, and those of this one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mlpack.training.options import Training


class QuantizedTraining(Training):
    """Fewer epochs in smaller steps than a training has elsewhere: the weights are near where they have to be."""

    set_by: ClassVar[str] = "quantize.training"

    epochs: int = Field(default=3, ge=1, description="passes over the training rows at the most")
    learning_rate: float = Field(default=1e-4, gt=0, description="at its highest: after the warm-up")
    seconds: float | None = Field(
        default=None, gt=0, description="of training, to which it is cut; each milder form has half of the one before"
    )
    learn_ranges: bool = Field(default=True, description="ranges of weights and activations are learnt too")
    alpha: float | None = Field(
        default=None, ge=0, le=1, description="share of the labels beside the float graph; default: 0.5, 0 without"
    )
    output: str | None = Field(default=None, description="the output that the labels belong to")
