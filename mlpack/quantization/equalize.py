"""Cross-layer equalization: what one layer's channel multiplies by more, the next one multiplies by less.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1,
equation 11: a channel between two layers is divided by s = sqrt(r1 / r2), where r1 and r2 are the largest absolute
weights that make it and that read it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

_BIAS = 2
_ROUNDS = 20
# A channel whose weights are this small beside the layer's largest is taken to be unused.
_NOTHING = 1e-5
_EVEN = 1e-3
_RENAMED = "_equalized"


def equalized(graph: onnx.ModelProto) -> list[str]:
    """Equalize, in place, every pair of convolutions or Gemms in a row; the tensors between them, by new names.

    Between them may be what passes a factor on, as a Relu does and one with an upper end does not; who else reads
    the channels, or the outputs of the graph, ends a row. Rows of more than two are gone over until they are even.
    Channels of zeros stay as they are. The graph computes what it did, but for rounding.

    Args:
        graph: with its weights.
    """
    weights = {each.name: each for each in graph.graph.initializer}
    layers: dict[str, _Layer] = {}
    pairs = list(_pairs(graph.graph, weights, layers))
    for _ in range(_ROUNDS):
        even = [_even(pair) for pair in pairs]
        if all(even):
            break
    uses = Counter(name for node in graph.graph.node for name in node.input)
    uses.update(_read_inside(graph.graph))
    for layer in layers.values():
        _write(graph.graph, weights, uses, layer.node, 1, layer.weight)
        if layer.bias is not None:
            _write(graph.graph, weights, uses, layer.node, _BIAS, layer.bias)
    return [name for pair in pairs for name in _renamed(graph.graph, pair.between)]


@dataclass
class _Layer:
    """A convolution or Gemm with its weight and bias in float64."""

    node: onnx.NodeProto
    weight: np.ndarray
    bias: np.ndarray | None

    @property
    def makes(self) -> np.ndarray:
        """A view of the weight: [output channels, all else]."""
        return self.weight if self._outputs_first else self.weight.T

    @property
    def reads(self) -> np.ndarray:
        """A view of the weight: [groups, output channels of each, input channels of each, all else]."""
        if self.node.op_type == "Gemm":
            return (self.weight if self._outputs_first else self.weight.T)[None, :, :, None]
        groups = _attribute(self.node, "group", 1)
        outputs, inputs = self.weight.shape[:2]
        return self.weight.reshape(groups, outputs // groups, inputs, -1)

    @property
    def _outputs_first(self) -> bool:
        return self.node.op_type == "Conv" or _attribute(self.node, "transB", 0) == 1


@dataclass(frozen=True)
class _Pair:
    """Two layers and the tensors between them."""

    first: _Layer
    second: _Layer
    between: list[str]


def _pairs(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto], layers: dict[str, _Layer]) -> Iterator[_Pair]:
    """Layers of which the second alone reads what the first makes; they are kept in `layers` by what they make."""
    reading: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            reading.setdefault(name, []).append(node)
    seen = {each.name for each in graph.output} | set(_read_inside(graph))
    for node in graph.node:
        if not _is_layer(node, weights):
            continue
        between = [node.output[0]]
        while between[-1] not in seen and len(readers := reading.get(between[-1], [])) == 1:
            (reader,) = readers
            if _passes_factors_on(reader, weights):
                between.append(reader.output[0])
                continue
            if _is_layer(reader, weights) and reader.input[0] == between[-1]:
                for each in (node, reader):
                    layers.setdefault(each.output[0], _layer(each, weights))
                yield _Pair(layers[node.output[0]], layers[reader.output[0]], between)
            break


def _read_inside(graph: onnx.GraphProto) -> Iterator[str]:
    """What the branches and loops of a graph read."""
    for node in graph.node:
        for each in node.attribute:
            for inner in [each.g] if each.type == AttributeProto.GRAPH else each.graphs:
                yield from (name for inside in inner.node for name in inside.input)
                yield from (output.name for output in inner.output)
                yield from _read_inside(inner)


def _is_layer(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether it is a product with constant weights, and with a constant bias or none."""
    if node.op_type not in {"Conv", "Gemm"} or _attribute(node, "transA", 0):
        return False
    return all(not name or name in weights for name in node.input[1:])


def _layer(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> _Layer:
    arrays = [numpy_helper.to_array(weights[name]).astype(np.float64) for name in node.input[1:] if name]
    return _Layer(node, arrays[0], arrays[1] if len(arrays) > 1 else None)


def _passes_factors_on(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether f(x / s) is f(x) / s for every s above zero: a Relu, also as a Clip without an upper end."""
    if node.op_type != "Clip":
        return str(node.op_type) == "Relu"
    ends = [*node.input[1:], "", ""]
    low, high = ends[0], ends[1]
    if low not in weights or (high and high not in weights):
        return False
    upper = numpy_helper.to_array(weights[high]).item() if high else np.inf
    return bool(numpy_helper.to_array(weights[low]).item() == 0 and upper == np.inf)


def _even(pair: _Pair) -> bool:
    """Divide and multiply the channels between the two; whether they were even before."""
    first, makes, reads = pair.first, pair.first.makes, pair.second.reads
    r1 = np.abs(makes.reshape(len(makes), -1)).max(axis=1)
    r2 = np.abs(reads).max(axis=(1, 3)).reshape(-1)
    used = (r1 > _NOTHING * r1.max()) & (r2 > _NOTHING * r2.max())
    scale = np.where(used, np.sqrt(np.where(used, r1, 1.0) / np.where(used, r2, 1.0)), 1.0)
    makes /= scale.reshape(-1, *[1] * (makes.ndim - 1))
    if first.bias is not None:
        first.bias = first.bias / scale
    reads *= scale.reshape(reads.shape[0], 1, reads.shape[2], 1)
    return bool(np.abs(scale - 1.0).max() < _EVEN)


def _write(
    graph: onnx.GraphProto,
    weights: dict[str, onnx.TensorProto],
    uses: Counter[str],
    node: onnx.NodeProto,
    slot: int,
    values: np.ndarray,
) -> None:
    """A constant of a node, in a copy of its own where others read it too."""
    constant = weights[node.input[slot]]
    kept = values.astype(helper.tensor_dtype_to_np_dtype(constant.data_type))
    if uses[constant.name] > 1:
        uses[constant.name] -= 1
        node.input[slot] = f"{node.output[0]}_{slot}{_RENAMED}"
        constant = graph.initializer.add()
    constant.CopyFrom(numpy_helper.from_array(kept, node.input[slot]))


def _renamed(graph: onnx.GraphProto, between: list[str]) -> list[str]:
    """What holds other values than before has another name: graphs are compared tensor by tensor."""
    for names in [names for node in graph.node for names in (node.input, node.output)]:
        for index, name in enumerate(names):
            if name in between:
                names[index] = name + _RENAMED
    for value in graph.value_info:
        if value.name in between:
            value.name += _RENAMED
    return [name + _RENAMED for name in between]


def _attribute(node: onnx.NodeProto, name: str, otherwise: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), otherwise)
