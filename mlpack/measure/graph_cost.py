"""What an ONNX graph has to compute and to read at the least: operations and bytes, node by node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import onnx

from mlpack.core.external_data import read_in
from mlpack.measure.graph_shapes import SHAPE_ELEMENTS, Shape, shapes_of
from mlpack.measure.graph_work import work_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# F(6x6, 3x3) multiplies 64 times where the plain way does 324 times (Lavin and Gray, arXiv 1509.09308); larger tiles
# lose too many digits in float32 to be used.
WINOGRAD = 324 / 64
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_PRODUCTS = {"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"}
_WINOGRAD_TAPS = 9
_PARAMETERS_AT = {"QLinearConv": (0, 3), "QLinearMatMul": (0, 3)}


class NodeCost(NamedTuple):
    """Operations (a multiplication and an addition are two) by the plain way, and by the least known one."""

    name: str
    kind: str
    operations: float
    least_operations: float


@dataclass(frozen=True)
class GraphCost:
    """A graph at given sizes. `weights` are elements that every call has to read, `bytes_io` its inputs and outputs.

    `work` are its amounts by kind of work, empty where a node's shapes are not known: what a prediction needs.
    """

    nodes: tuple[NodeCost, ...]
    weights: int
    bytes_io: int
    opset: int
    work: Mapping[str, float] = field(default_factory=dict)

    @property
    def operations(self) -> float:
        """Of all nodes, by the plain way."""
        return sum(node.operations for node in self.nodes)

    @property
    def least_operations(self) -> float:
        """Of all nodes, by the least known way."""
        return sum(node.least_operations for node in self.nodes)


def graph_cost(path: Path, sizes: Mapping[str, int], otherwise: int = 1) -> GraphCost:
    """Count the graph of a file with its named dims at these sizes; names that are not given are `otherwise`.

    Only matrix products, convolutions and recurrent layers count; what constants alone decide, what no output needs,
    bodies of loops, and nodes of which shape inference does not know the shapes count nothing: never too much.
    """
    proto = onnx.load(path, load_external_data=False)
    graph = proto.graph
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= SHAPE_ELEMENTS:
            read_in(tensor, path.parent)
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    for value in given:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = sizes.get(dim.dim_param, otherwise)
    # What an exporter wrote holds for the symbols, not for these sizes.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    shapes = shapes_of(proto)
    needed, decided = _needed(graph, constants)
    nodes = tuple(_cost(node, shapes) for node in needed)
    read = {name for node in needed if node.op_type not in {"Gather", "GatherND"} for name in node.input}
    # Weights that a file has in integers are read as such.
    read |= {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.output[0] in read}
    weights = sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.name in read)
    operations = [(node, cost.operations) for node, cost in zip(needed, nodes, strict=True)]
    return GraphCost(
        nodes=nodes,
        weights=weights,
        bytes_io=sum(_bytes(value, shapes) for value in (*given, *graph.output)),
        opset=next((each.version for each in proto.opset_import if each.domain in {"", "ai.onnx"}), 0),
        work=work_of(operations, shapes, decided, weights),
    )


def _needed(graph: onnx.GraphProto, constants: set[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that an output waits for and that constants alone do not decide; and the tensors that these decide."""
    decided = {*constants, ""}
    varying = []
    for node in graph.node:
        inner = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        drawn = node.op_type.startswith("Random") or inner
        if not drawn and decided.issuperset(node.input):
            decided.update(node.output)
        else:
            varying.append(node)
    wanted = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(varying):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            for attribute in node.attribute:
                wanted.update(name for body in (attribute.g, *attribute.graphs) for name in _outer(body))
            kept.append(node)
    return kept[::-1], decided


def _outer(body: onnx.GraphProto) -> Iterable[str]:
    """The names that a body reads, its own among them."""
    for node in body.node:
        yield from node.input
    yield from (value.name for value in body.output)


def _bytes(value: onnx.ValueInfoProto, shapes: Mapping[str, Shape]) -> int:
    kind = value.type.tensor_type.elem_type
    if value.name not in shapes or kind in {onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING}:
        return 0
    itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return math.prod(shapes[value.name]) * itemsize


def _cost(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> NodeCost:
    plain = _operations(node, shapes)
    name = node.name or next(iter(node.output), "")
    return NodeCost(name, node.op_type, plain, plain / _saved(node, shapes) if plain else plain)


def _operations(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    first, second = _PARAMETERS_AT.get(node.op_type, (0, 1))
    if len(node.input) <= second or not node.output:
        return 0
    left, right = shapes.get(node.input[first]), shapes.get(node.input[second])
    result = shapes.get(node.output[0])
    if node.op_type in _GATES and left is not None and right is not None:
        length, batch, width = left
        directions, rows, _ = right
        hidden = rows // _GATES[node.op_type]
        return 2.0 * length * batch * directions * rows * (width + hidden)
    if left is None or right is None or result is None:
        return 0
    each, times = 0, 0
    if node.op_type in _CONVOLUTIONS:
        each, times = math.prod(result), math.prod(right[1:])
    elif node.op_type == "ConvTranspose":
        each, times = math.prod(left), math.prod(right[1:])
    elif node.op_type in _PRODUCTS and left:
        each, times = math.prod(result), left[0] if _attribute(node, "transA") else left[-1]
    return 2.0 * each * times


def _saved(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    """By how much the least known way multiplies less often: Winograd's, and Fourier's for larger kernels."""
    if node.op_type not in {*_CONVOLUTIONS, "ConvTranspose"}:
        return 1
    _, weights = _PARAMETERS_AT.get(node.op_type, (0, 1))
    taps = math.prod(shapes[node.input[weights]][2:])
    return 1 if taps == 1 else WINOGRAD if taps <= _WINOGRAD_TAPS else max(WINOGRAD, taps)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
