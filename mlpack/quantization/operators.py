"""ONNX operators as torch functions: what a graph needs that is trained, in the words of the ONNX specification.

Each takes the node's attributes by name and its inputs, None where one is left out, and gives its output, or a tuple
of them. Dimensions and indices are tensors too, as they are in the graph.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto, numpy_helper
from torch.nn import functional

from mlpack.quantization.layer_operators import (
    average_pool,
    batch_norm,
    conv,
    conv_transpose,
    gemm,
    grown,
    gru,
    layer_norm,
    lstm,
    max_pool,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Told = Mapping[str, Any]
    Operator = Callable[..., Any]

_TYPES = {
    TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16, TensorProto.DOUBLE: torch.float64,
    TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int32, TensorProto.INT16: torch.int16,
    TensorProto.INT8: torch.int8, TensorProto.UINT8: torch.uint8, TensorProto.BOOL: torch.bool,
}  # fmt: skip


def _plain(function: Operator) -> Operator:
    """An operator without attributes."""
    return lambda _, *given: function(*given)


def _numbers(given: torch.Tensor | Iterable[int]) -> list[int]:
    return [int(each) for each in (given.tolist() if isinstance(given, torch.Tensor) else given)]


def _axes(told: Told, given: torch.Tensor | None) -> list[int] | None:
    """An input of today's operators, an attribute of older ones; None where all are meant."""
    axes = told.get("axes") if given is None else given
    return None if axes is None else _numbers(axes)


def _divided(_: Told, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.div(one, other, rounding_mode=None if one.is_floating_point() else "trunc")


def _clipped(told: Told, x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    low, high = (told.get(name) if end is None else end for name, end in (("min", low), ("max", high)))
    return x if low is None and high is None else torch.clamp(x, low, high)


def _reduced(function: Callable[[torch.Tensor, list[int], bool], torch.Tensor]) -> Operator:
    def run(told: Told, x: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        axes = _axes(told, given)
        if not axes and told.get("noop_with_empty_axes"):
            return x
        return function(x, axes or list(range(x.ndim)), bool(told.get("keepdims", 1)))

    return run


# --- shapes and indices ---


def _shape(told: Told, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.shape[told.get("start", 0) : told.get("end")], dtype=torch.int64)


def _reshaped(told: Told, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    dims = _numbers(shape)
    return x.reshape(dims if told.get("allowzero") else [dim or x.shape[at] for at, dim in enumerate(dims)])


def _flattened(told: Told, x: torch.Tensor) -> torch.Tensor:
    return x.reshape(math.prod(x.shape[: told.get("axis", 1)]), -1)


def _squeezed(told: Told, x: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
    axes = _axes(told, given)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueezed(told: Told, x: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
    axes = _axes(told, given) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expanded(_: Told, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(_numbers(shape))))


def _split(told: Told, x: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    axis = told.get("axis", 0)
    lengths = told.get("split") if sizes is None else sizes
    if lengths is None:
        return tuple(x.split(-(-x.shape[axis] // told["num_outputs"]), axis))
    return tuple(x.split(_numbers(lengths), axis))


def _sliced(
    _: Told,
    x: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    first = _numbers(starts)
    along = range(len(first)) if axes is None else _numbers(axes)
    by = [1] * len(first) if steps is None else _numbers(steps)
    for start, end, axis, step in zip(first, _numbers(ends), along, by, strict=True):
        # torch has no steps backwards.
        x = x.index_select(axis, torch.tensor(range(x.shape[axis])[start:end:step], dtype=torch.int64))
    return x


def _gathered(told: Told, x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    axis = told.get("axis", 0) % x.ndim
    flat = which.reshape(-1).long() % x.shape[axis]
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *which.shape, *x.shape[axis + 1 :])


def _gathered_elements(told: Told, x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    axis = told.get("axis", 0)
    return x.gather(axis, which % x.shape[axis])


def _gathered_nd(told: Told, x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    if told.get("batch_dims"):
        raise refused("GatherND with batch_dims")
    return x[tuple(which.unbind(-1))]


def _padded(
    told: Told,
    x: torch.Tensor,
    pads: torch.Tensor,
    value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
) -> torch.Tensor:
    mode = told.get("mode", b"constant")
    if mode != b"constant":
        raise refused(f"Pad in mode {mode.decode()}")
    ends = _numbers(pads)
    along = range(x.ndim) if axes is None else [axis % x.ndim for axis in _numbers(axes)]
    of = dict(zip(along, zip(ends[: len(ends) // 2], ends[len(ends) // 2 :], strict=True), strict=True))
    return grown(x, [of.get(axis, (0, 0)) for axis in range(x.ndim)], 0.0 if value is None else value.item())


def _cast(told: Told, x: torch.Tensor) -> torch.Tensor:
    if told["to"] not in _TYPES:
        raise refused(f"Cast to {TensorProto.DataType.Name(told['to']).lower()}")
    return x.to(_TYPES[told["to"]])


def _constant(told: Told) -> torch.Tensor:
    (kind, value), *_ = told.items()
    return torch.tensor(numpy_helper.to_array(value) if kind == "value" else value)


def _summed_up(told: Told, x: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    if told.get("exclusive") or told.get("reverse"):
        raise refused("CumSum that is exclusive or reverse")
    return x.cumsum(int(axis))


def _filled(told: Told, shape: torch.Tensor) -> torch.Tensor:
    value = torch.tensor(numpy_helper.to_array(told["value"])) if "value" in told else torch.zeros(1)
    return value.reshape(()).expand(_numbers(shape))


OPERATORS: dict[str, Operator] = {
    **{
        name: _plain(function)
        for name, function in {
            "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Pow": torch.pow, "MatMul": torch.matmul,
            "Sqrt": torch.sqrt, "Exp": torch.exp, "Log": torch.log, "Erf": torch.erf, "Neg": torch.neg,
            "Abs": torch.abs, "Reciprocal": torch.reciprocal, "Sin": torch.sin, "Cos": torch.cos,
            "Floor": torch.floor, "Ceil": torch.ceil, "IsNaN": torch.isnan, "Relu": torch.relu,
            "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": functional.softplus,
            "HardSwish": functional.hardswish, "Mish": functional.mish, "Where": torch.where,
            "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
            "Equal": torch.eq, "Less": torch.lt, "LessOrEqual": torch.le, "Greater": torch.gt,
            "GreaterOrEqual": torch.ge, "Not": torch.logical_not, "And": torch.logical_and, "Or": torch.logical_or,
            "Identity": lambda x: x, "Dropout": lambda x, *_: x,
            "Min": lambda *all_: reduce(torch.minimum, all_), "Max": lambda *all_: reduce(torch.maximum, all_),
            "Sum": lambda *all_: reduce(torch.add, all_),
            "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
            "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
            "Tile": lambda x, repeats: x.repeat(_numbers(repeats)),
            "Range": lambda start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype),
        }.items()
    },
    **{
        name: _reduced(function)
        for name, function in {
            "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
            "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
        }.items()
    },
    "Div": _divided, "Clip": _clipped, "Shape": _shape, "Reshape": _reshaped, "Flatten": _flattened,
    "Squeeze": _squeezed, "Unsqueeze": _unsqueezed, "Expand": _expanded, "Split": _split, "Slice": _sliced,
    "Gather": _gathered, "GatherElements": _gathered_elements, "GatherND": _gathered_nd, "Pad": _padded,
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool, "AveragePool": average_pool,
    "Gemm": gemm, "LayerNormalization": layer_norm, "BatchNormalization": batch_norm, "GRU": gru, "LSTM": lstm,
    "Constant": _constant, "ConstantOfShape": _filled,
    "Cast": _cast,
    "Concat": lambda told, *parts: torch.cat(parts, told["axis"]),
    "Transpose": lambda told, x: x.permute(tuple(told.get("perm") or reversed(range(x.ndim)))),
    "Softmax": lambda told, x: torch.softmax(x, told.get("axis", -1)),
    "LogSoftmax": lambda told, x: torch.log_softmax(x, told.get("axis", -1)),
    "Gelu": lambda told, x: functional.gelu(x, approximate=told.get("approximate", b"none").decode()),
    "LeakyRelu": lambda told, x: functional.leaky_relu(x, told.get("alpha", 0.01)),
    "Elu": lambda told, x: functional.elu(x, told.get("alpha", 1.0)),
    "HardSigmoid": lambda told, x: torch.clamp(told.get("alpha", 0.2) * x + told.get("beta", 0.5), 0, 1),
    "InstanceNormalization": lambda told, x, scale, bias: functional.instance_norm(
        x, weight=scale, bias=bias, eps=told.get("epsilon", 1e-5)
    ),
    "Einsum": lambda told, *factors: torch.einsum(told["equation"].decode(), *factors),
    "Trilu": lambda told, x, k=None: (torch.triu if told.get("upper", 1) else torch.tril)(x, int(k or 0)),
    "CumSum": _summed_up,
}  # fmt: skip
"""By their ONNX names."""
