"""What a graph does, by kind of work: the amounts that a prediction learns a price for each of."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import onnx

    from mlpack.measure.graph_shapes import Shape

# In operations: what the peak rate of a unit says something about.
RATED = ("convolution", "depthwise", "grouped", "transposed", "product", "recurrent")
# In elements that are read or written, in weights, and in numbers of things that cost something each.
COUNTED = ("move", "weights", "kernels", "nodes", "steps", "calls")

# Quantizing is part of the node that it is done for, where kernels for integers are.
_PART_OF_ANOTHER = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Identity", "Dropout"}
_OF_INTEGERS = {"MatMulInteger", "ConvInteger"}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Size"}
_READS_A_PART = {"Gather", "GatherND", "GatherElements", "Slice"}
# An activation that these compute while they write their result.
_FUSED = {"Relu", "LeakyRelu", "Clip", "HardSigmoid", "Sigmoid", "Tanh"}
_FUSES = {"Conv", "Gemm"}
_RECURRENT = {"LSTM", "GRU", "RNN"}


def work_of(
    nodes: Sequence[tuple[onnx.NodeProto, float]],
    shapes: Mapping[str, Shape],
    constants: AbstractSet[str],
    weights: int,
) -> dict[str, float]:
    """Amounts by kind of work, of nodes with their operations; none where a shape or a body is not known.

    `constants` are the tensors that do not change from call to call.
    """
    producers = {output: node for node, _ in nodes for output in node.output}
    readers = Counter(name for node, _ in nodes for name in node.input)
    found: dict[str, float] = defaultdict(float, {"weights": float(weights), "calls": 1.0})
    for node, operations in nodes:
        if node.op_type in _PART_OF_ANOTHER or _scales(node, producers) or _is_fused(node, producers, readers):
            continue
        if not _is_known(node, shapes, constants):
            return {}
        kind = _kind(node, shapes)
        if kind in RATED:
            found[kind] += operations
            found["kernels"] += 1
            found["steps"] += _steps(node, shapes)
        else:
            found["nodes"] += 1
            found[kind] += 0 if node.op_type in _VIEWS else _elements(node, shapes, constants)
    return {kind: amount for kind, amount in found.items() if amount}


def _is_known(node: onnx.NodeProto, shapes: Mapping[str, Shape], constants: AbstractSet[str]) -> bool:
    """Whether all is known that its work follows from. A body runs nobody knows how often."""
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return False
    read = (name for name in node.input if name not in constants)
    return all(name in shapes for name in (*read, *node.output) if name)


def _scales(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether it makes floats of a product of integers, or the scale for that: kernels do so as they write it."""
    sources = [producers[name] for name in node.input if name in producers]
    if node.op_type == "Cast":
        return any(each.op_type in _OF_INTEGERS for each in sources)
    return node.op_type == "Mul" and any(
        each.op_type == "DynamicQuantizeLinear" or (each.op_type == "Cast" and _scales(each, producers))
        for each in sources
    )


def _is_fused(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], readers: Mapping[str, int]) -> bool:
    if node.op_type not in _FUSED or readers[node.input[0]] > 1:
        return False
    source = producers.get(node.input[0])
    while source is not None and source.op_type in _PART_OF_ANOTHER:
        source = producers.get(source.input[0])
    return source is not None and source.op_type in _FUSES


def _kind(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> str:
    operator = node.op_type
    if operator in {"Conv", "ConvInteger", "QLinearConv"}:
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        weights = shapes.get(node.input[3 if operator == "QLinearConv" else 1], (0, 0))
        return "convolution" if groups == 1 else "depthwise" if weights[1] == 1 else "grouped"
    if operator in {"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"}:
        return "product"
    if operator == "ConvTranspose":
        return "transposed"
    return "recurrent" if operator in _RECURRENT else "move"


def _steps(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Of a recurrent layer: each waits for the one before it."""
    return shapes[node.input[0]][0] * shapes[node.input[1]][0] if node.op_type in _RECURRENT else 0


def _elements(node: onnx.NodeProto, shapes: Mapping[str, Shape], constants: AbstractSet[str]) -> int:
    """That it reads and writes; of a table or a slice as many as it takes out."""
    written = sum(math.prod(shapes[name]) for name in node.output if name)
    read = [name for name in node.input if name and name not in constants]
    if node.op_type in _READS_A_PART:
        return 2 * written + sum(math.prod(shapes[name]) for name in read if name != node.input[0])
    return written + sum(math.prod(shapes[name]) for name in read)
