"""QuantizeLinear and DequantizeLinear in torch: rounding lets gradients through, to the values and to the steps.

Source: Esser et al., Learned Step Size Quantization, ICLR 2020, equations 1 to 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# The largest float32 below 2^31: biases are int32.
ENDS = {
    torch.int8: (-128.0, 127.0), torch.uint8: (0.0, 255.0), torch.int32: (-2147483648.0, 2147483520.0),
}  # fmt: skip


class Rounded(torch.autograd.Function):  # type: ignore[misc] # torch is opaque to mypy here
    """x / step rounded to a whole number within the ends. Gradients pass as if it were not rounded."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor, low: float, high: float
    ) -> torch.Tensor:
        """Halves go to the even number, as in ONNX."""
        ctx.save_for_backward(x, step, zero)
        ctx.ends = low, high
        return torch.round(x / step).add_(zero).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, of_result: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Beyond the ends nothing passes. With what DequantizeLinear adds, that of the step is LSQ's equation 3."""
        x, step, zero = ctx.saved_tensors
        low, high = ctx.ends
        steps = x / step
        inside = of_result * ((steps >= low - zero) & (steps <= high - zero)) / step
        of_step = _summed(-inside * steps, step) if ctx.needs_input_grad[1] else None
        return inside, of_step, None, None, None


def _summed(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Over all that one step is for."""
    return gradient.sum_to_size(like.shape)


def quantized(
    told: Mapping[str, Any], x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor | None = None
) -> torch.Tensor:
    """QuantizeLinear; its integers are floats."""
    ends = ENDS[torch.uint8 if zero is None else zero.dtype]
    rounded: torch.Tensor = Rounded.apply(x, *along(told.get("axis", 1), x, step, zero), *ends)
    return rounded


def dequantized(
    told: Mapping[str, Any], x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor | None = None
) -> torch.Tensor:
    """DequantizeLinear."""
    step, zero = along(told.get("axis", 1), x, step, zero)
    return (x.to(torch.float32) - zero) * step


def along(
    axis: int, x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step and zero point as they meet the values, both in float: one for all, or one for each along the axis."""
    zero = torch.zeros_like(step) if zero is None else zero.to(torch.float32)
    if step.ndim == 0 or step.numel() == 1:
        return step.reshape(()), zero.reshape(())
    shape = [-1 if at == axis % x.ndim else 1 for at in range(x.ndim)]
    return step.reshape(shape), zero.reshape(shape)
