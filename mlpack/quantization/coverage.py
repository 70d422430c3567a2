"""Coverage: the share of a graph's multiply-accumulates that runs in given numerics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_INTEGER = {
    "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "QAttention", "QGemm",
}  # fmt: skip
_FLOAT = {"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}
_HALF = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
# A symbolic dim (batch, length) scales every node of a graph alike; any one number gives the same shares.
_SYMBOLIC = 1


@dataclass(frozen=True)
class ComputeNode:
    """A node that multiplies and accumulates: its name, type, numerics, and work at batch 1."""

    name: str
    operator: str
    numerics: str
    macs: float


def compute_nodes(path: Path) -> list[ComputeNode]:
    """All multiply-accumulate nodes of an ONNX file with the numerics that each runs in."""
    proto = onnx.load(path, load_external_data=False)
    graph = _Graph(proto)
    found = []
    for node in proto.graph.node:
        if node.op_type in _INTEGER:
            found.append(ComputeNode(node.name, node.op_type, "int8", graph.macs(node)))
        elif node.op_type in _FLOAT:
            found.append(ComputeNode(node.name, node.op_type, graph.numerics(node), graph.macs(node)))
    return found


def share(path: Path, numerics: str) -> float:
    """The share of the multiply-accumulates in these numerics, 0 to 1; 0 for a graph without any."""
    nodes = compute_nodes(path)
    total = sum(node.macs for node in nodes)
    return sum(node.macs for node in nodes if node.numerics == numerics) / total if total else 0.0


class _Graph:
    def __init__(self, proto: onnx.ModelProto) -> None:
        inferred = shape_inference.infer_shapes(proto, strict_mode=False)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, int] = {}
        graph = inferred.graph
        for value in (*graph.value_info, *graph.input, *graph.output):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.shapes[value.name] = tuple(dim.dim_value or _SYMBOLIC for dim in tensor.shape.dim)
        for weight in graph.initializer:
            self.shapes[weight.name] = tuple(weight.dims)
            self.types[weight.name] = weight.data_type
        self.producers = {output: node for node in proto.graph.node for output in node.output}

    def numerics(self, node: onnx.NodeProto) -> str:
        """int8 where every operand was just dequantized, a half type where the weights are half, else fp32."""
        operands = [self.producers.get(name) for name in node.input[:2]]
        if all(producer is not None and producer.op_type == "DequantizeLinear" for producer in operands):
            return "int8"
        types = {self.types.get(name, 0) for name in node.input[:2]}
        return next((_HALF[kind] for kind in types if kind in _HALF), "fp32")

    def macs(self, node: onnx.NodeProto) -> float:
        operands = list(node.input[:2])
        if node.op_type.startswith("QLinear"):
            operands = [node.input[0], node.input[3]]
        left, right = (self.shapes.get(name, ()) for name in operands)
        if "Conv" in node.op_type:
            output = self.shapes.get(node.output[0]) or left
            return float(np.prod(output or [1])) * float(np.prod(right[1:] or [1]))
        if node.op_type in {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}:
            steps = left[0] if left else 1
            return float(steps) * float(np.prod(right or [1])) * 2
        rows = float(np.prod(left[:-1] or [1]))
        inner_outer = float(np.prod(right[-2:] or [1]))
        return rows * inner_outer


def operator_counts(path: Path) -> dict[str, int]:
    """How many nodes of each type a graph has, subgraphs included."""
    proto = onnx.load(path, load_external_data=False)
    counts: dict[str, int] = {}
    for node in _walk(proto.graph.node):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _walk(attribute.g.node)


def weight_range(path: Path) -> float:
    """The largest absolute float weight: fp16 ends at 65,504."""
    proto = onnx.load(path)
    floats = (
        numpy_helper.to_array(weight)
        for weight in proto.graph.initializer
        if weight.data_type == TensorProto.FLOAT
    )
    return max((float(np.abs(array).max()) for array in floats if array.size), default=0.0)
