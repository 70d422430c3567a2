"""The ONNX operators of whole layers as torch functions: convolutions, pools, norms, recurrent ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Told = Mapping[str, Any]

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
# Gates: ONNX has z, r, h and i, o, f, c; torch has r, z, n and i, f, g, o.
_GRU_GATES, _LSTM_GATES = (1, 0, 2), (0, 2, 3, 1)


def refused(what: str) -> StageFailed:
    """The error of a graph that cannot be trained."""
    return StageFailed(f"{what} cannot be trained through", "leave --train out: int8 is then made without training")


def grown(x: torch.Tensor, ends: Sequence[tuple[int, int]], value: float) -> torch.Tensor:
    """More on both ends of the last dimensions."""
    return functional.pad(x, [each for pair in reversed(ends) for each in pair], value=value)


def _windows(told: Told, x: torch.Tensor, fill: float) -> tuple[torch.Tensor, list[int]]:
    """What a convolution or pool slides over, and the padding that torch is left to do."""
    if told.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        raise refused(f"auto_pad {told['auto_pad'].decode()}")
    count = x.ndim - 2
    pads = list(told.get("pads", [0] * 2 * count))
    before, after = pads[:count], pads[count:]
    if before == after:
        return x, before
    return grown(x, list(zip(before, after, strict=True)), fill), [0] * count


def conv(told: Told, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Over one, two or three dimensions."""
    x, padding = _windows(told, x, 0.0)
    ones = [1] * (x.ndim - 2)
    return _CONVOLVE[x.ndim - 2](
        x, weight, bias, told.get("strides", ones), padding, told.get("dilations", ones), told.get("group", 1)
    )


def conv_transpose(told: Told, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same, the other way round."""
    count = x.ndim - 2
    ones, pads = [1] * count, list(told.get("pads", [0] * 2 * count))
    if pads[:count] != pads[count:] or "output_shape" in told or told.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise refused("ConvTranspose with uneven padding")
    return _TRANSPOSED[count](
        x, weight, bias, told.get("strides", ones), pads[:count], told.get("output_padding", [0] * count),
        told.get("group", 1), told.get("dilations", ones),
    )  # fmt: skip


def max_pool(told: Told, x: torch.Tensor) -> torch.Tensor:
    """The largest of each window."""
    x, padding = _windows(told, x, -math.inf)
    ones = [1] * (x.ndim - 2)
    return _MAX_POOL[x.ndim - 2](
        x, told["kernel_shape"], told.get("strides", ones), padding, told.get("dilations", ones),
        bool(told.get("ceil_mode", 0)),
    )  # fmt: skip


def average_pool(told: Told, x: torch.Tensor) -> torch.Tensor:
    """The mean of each window."""
    counted = bool(told.get("count_include_pad", 0))
    slid, padding = _windows(told, x, 0.0)
    if (slid is not x and not counted) or set(told.get("dilations", [1])) != {1}:
        raise refused("AveragePool with uneven padding or dilations")
    return _MEAN_POOL[x.ndim - 2](
        slid,
        told["kernel_shape"],
        told.get("strides", [1] * (x.ndim - 2)),
        padding,
        bool(told.get("ceil_mode", 0)),
        counted,
    )


def gemm(told: Told, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    """Alpha A B + beta C."""
    a, b = a.T if told.get("transA") else a, b.T if told.get("transB") else b
    product = told.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + told.get("beta", 1.0) * c


def layer_norm(told: Told, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Over the last dimensions, from `axis` on."""
    return functional.layer_norm(x, x.shape[told.get("axis", -1) :], scale, bias, told.get("epsilon", 1e-5))


def batch_norm(told: Told, x: torch.Tensor, scale: Any, bias: Any, mean: Any, variance: Any) -> torch.Tensor:
    """With the statistics that the graph has."""
    if told.get("training_mode"):
        raise refused("BatchNormalization in training mode")
    return functional.batch_norm(x, mean, variance, scale, bias, eps=told.get("epsilon", 1e-5))


def _recurrent(
    told: Told,
    weight: torch.Tensor,
    again: torch.Tensor,
    bias: torch.Tensor | None,
    gates: Sequence[int],
) -> tuple[list[torch.Tensor], bool, bool]:
    """The weights as torch has them, whether there are biases, whether both directions are read."""
    direction = told.get("direction", b"forward").decode()
    if direction == "reverse" or told.get("layout") or {"activations", "clip"} & set(told):
        raise refused("a recurrent layer read backwards only, or with other activations,")
    parts = []
    for at in range(weight.shape[0]):
        biases = () if bias is None else bias[at].chunk(2)
        for each in (weight[at], again[at], *biases):
            pieces = each.chunk(len(gates))
            parts.append(torch.cat([pieces[gate] for gate in gates]))
    return parts, bias is not None, direction == "bidirectional"


def _states(states: torch.Tensor, directions: int) -> torch.Tensor:
    """[steps, batch, directions × size] as ONNX has it."""
    return states.unflatten(2, (directions, -1)).transpose(1, 2)


def gru(
    told: Told, x: torch.Tensor, weight: Any, again: Any, bias: Any = None, lengths: Any = None, first: Any = None
) -> tuple[torch.Tensor, ...]:
    """All its states, and the last ones."""
    if lengths is not None or not told.get("linear_before_reset"):
        raise refused("a GRU with lengths, or that resets before it multiplies,")
    parts, biased, both = _recurrent(told, weight, again, bias, _GRU_GATES)
    hidden = x.new_zeros(len(weight), x.shape[1], told["hidden_size"]) if first is None else first
    states, last = torch.gru(x, hidden, parts, biased, 1, 0.0, False, both, False)
    return _states(states, len(weight)), last


def lstm(
    told: Told,
    x: torch.Tensor,
    weight: Any,
    again: Any,
    bias: Any = None,
    lengths: Any = None,
    first: Any = None,
    cell: Any = None,
    peepholes: Any = None,
) -> tuple[torch.Tensor, ...]:
    """All its states, the last ones, and the last cells."""
    if lengths is not None or peepholes is not None or told.get("input_forget"):
        raise refused("an LSTM with lengths or peepholes")
    parts, biased, both = _recurrent(told, weight, again, bias, _LSTM_GATES)
    zeros = x.new_zeros(len(weight), x.shape[1], told["hidden_size"])
    hidden = tuple(zeros if each is None else each for each in (first, cell))
    states, last, memory = torch.lstm(x, hidden, parts, biased, 1, 0.0, False, both, False)
    return _states(states, len(weight)), last, memory
