"""SmoothQuant: what is hard to quantize in the activations of a product moves into its weights.

Source: Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models,
ICML 2023, equation 4. A channel of the activations is divided by s = max|X|^α / max|W|^(1−α), the weights' row is
multiplied by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

from mlpack.quantization.stream import stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx

    from mlpack.quantization.shown import Arrays

_MATRIX = 2
# A channel that is never used, or that no weight listens to, stays as it is.
_NOTHING = 1e-5


def smoothed(
    graph: onnx.ModelProto, batches: Iterable[Arrays], strength: float, *, threads: int, cut: bool
) -> list[str]:
    """Smooth, in place, every product of a normalized activation with weights; the activations that were divided.

    Only what a layer normalization gives is smoothed: there a few channels are a hundred times the others. A Mul does
    the division, one for all products that read it: in most graphs a residual sum reads it too, undivided. The graph
    computes what it did, but for rounding.

    Args:
        graph: with its shapes.
        batches: calibration feeds.
        strength: α, 0 (nothing moves) to 1 (all of it moves).
        threads: of ONNX Runtime.
        cut: whether batches may be run in parts.
    """
    weights = {each.name: each for each in graph.graph.initializer}
    found = [each for each in _normalized(graph, weights) if each.products]
    if not found:
        return []
    largest = _channel_maxima(graph, [each.tensor for each in found], batches, threads=threads, cut=cut)
    for each in found:
        rows = np.max([_rows(node, weights) for node in each.products], axis=0)
        scale = _scale(largest[each.tensor], rows, strength)
        for node in each.products:
            _multiply(graph, node, weights[node.input[1]], scale)
        _divide(graph, each, scale)
    return [each.tensor for each in found]


@dataclass(frozen=True)
class _Normalized:
    """What a layer normalization gives, the nodes through which only products read it, and these products."""

    tensor: str
    readers: list[onnx.NodeProto]
    products: list[onnx.NodeProto]


def _normalized(graph: onnx.ModelProto, weights: dict[str, onnx.TensorProto]) -> Iterator[_Normalized]:
    """Every layer normalization; a Reshape in between, as exporters put it before a Gemm, keeps the channels."""
    outputs = {each.name for each in graph.graph.output}
    reading: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            reading.setdefault(name, []).append(node)
    for norm in graph.graph.node:
        if norm.op_type != "LayerNormalization" or norm.input[1] not in weights:
            continue
        channels = weights[norm.input[1]].dims[-1]
        readers, products = [], []
        for node in reading.get(norm.output[0], []):
            behind = reading.get(node.output[0], []) if node.op_type == "Reshape" else [node]
            if node.output[0] not in outputs and all(_multiplies(each, weights, channels) for each in behind):
                readers.append(node)
                products += behind
        yield _Normalized(norm.output[0], readers, products)


def _channel_maxima(
    graph: onnx.ModelProto, tensors: list[str], batches: Iterable[Arrays], *, threads: int, cut: bool
) -> dict[str, np.ndarray]:
    """The largest absolute value of each channel, the last axis, of these tensors."""
    largest: dict[str, np.ndarray] = {}

    def see(values: Arrays) -> None:
        for name in tensors:
            array = np.abs(values[name])
            seen = array.max(axis=tuple(range(array.ndim - 1)), initial=0.0)
            largest[name] = np.maximum(largest.get(name, seen), seen)

    stream(graph, tensors, batches, see, threads=threads, cut=cut)
    return largest


def _multiplies(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], channels: int) -> bool:
    """Whether it is a product of so many channels with a matrix of the model's."""
    if node.op_type not in {"MatMul", "Gemm"} or any(each.name == "transA" and each.i for each in node.attribute):
        return False
    weight = weights.get(node.input[1])
    return weight is not None and len(weight.dims) == _MATRIX and weight.dims[1 if _transposed(node) else 0] == channels


def _transposed(node: onnx.NodeProto) -> bool:
    return any(each.name == "transB" and each.i == 1 for each in node.attribute)


def _rows(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> np.ndarray:
    """The largest absolute weight of each input channel."""
    matrix = np.abs(numpy_helper.to_array(weights[node.input[1]]))
    return np.asarray(matrix.max(axis=0 if _transposed(node) else 1))


def _scale(activations: np.ndarray, rows: np.ndarray, strength: float) -> np.ndarray:
    used = (activations > _NOTHING) & (rows > _NOTHING)
    safe_activations, safe_rows = np.where(used, activations, 1.0), np.where(used, rows, 1.0)
    scale = safe_activations.astype(np.float64) ** strength / safe_rows.astype(np.float64) ** (1.0 - strength)
    return np.where(used, scale, 1.0).astype(np.float32)


def _multiply(graph: onnx.ModelProto, node: onnx.NodeProto, weight: onnx.TensorProto, scale: np.ndarray) -> None:
    """The product's weight, in a copy of its own where others read it too."""
    matrix = numpy_helper.to_array(weight)
    moved = (matrix * (scale[None, :] if _transposed(node) else scale[:, None])).astype(matrix.dtype)
    if sum(list(each.input).count(weight.name) for each in graph.graph.node) == 1:
        weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
        return
    node.input[1] = f"{node.output[0]}_weight_smoothed"
    graph.graph.initializer.append(numpy_helper.from_array(moved, node.input[1]))


def _divide(graph: onnx.ModelProto, found: _Normalized, scale: np.ndarray) -> None:
    """A Mul by 1/s between the tensor and those readers."""
    name = f"{found.tensor}_smoothed"
    # Quantizers call a tensor's own scale NAME_scale.
    graph.graph.initializer.append(numpy_helper.from_array(1.0 / scale, f"{name}_inverse"))
    at = next(index for index, node in enumerate(graph.graph.node) if found.tensor in node.output)
    # Named by the layer that it was made for: its time and its noise belong there.
    owner = graph.graph.node[at].name
    divide = helper.make_node("Mul", [found.tensor, f"{name}_inverse"], [name], name=f"{owner}_smooth")
    graph.graph.node.insert(at + 1, divide)
    for node in found.readers:
        node.input[0] = name
    _shaped_like(graph, found.tensor, name)
    # What holds other values than before has another name: graphs are compared tensor by tensor.
    for node in found.readers:
        if node.op_type == "Reshape":
            before, node.output[0] = node.output[0], f"{node.output[0]}_smoothed"
            _shaped_like(graph, before, node.output[0])
            for product in found.products:
                if product.input[0] == before:
                    product.input[0] = node.output[0]


def _shaped_like(graph: onnx.ModelProto, before: str, name: str) -> None:
    """A tensor of that name has the shape of this one."""
    shapes = {each.name: each for each in [*graph.graph.value_info, *graph.graph.output]}
    if before in shapes:
        graph.graph.value_info.append(shapes[before])
        graph.graph.value_info[-1].name = name
