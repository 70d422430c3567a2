"""Coverage: the share of a graph's multiply-accumulates that runs in given numerics."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mlpack.core.external_data import load_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_INTEGER = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeLSTM", "QGemm"}
_FLOAT = {"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}
_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
_GEMM = {"Gemm", "QGemm"}
# Weights in blocks of few bits: the numerics are those of the weights, by the bits that an attribute has.
_BLOCKS = "MatMulNBits"
_BITS = {4: "int4", 8: "int8"}
_INT4 = {TensorProto.INT4, TensorProto.UINT4}
# From here on a float32 stands for infinity: what a mask adds to scores is the type's lowest number.
INFINITE = 1e38
_ZERO_POINT = 2
_HALF = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
Shapes = tuple[list[list[int]], list[list[int]]]


@dataclass(frozen=True)
class ComputeNode:
    """A node that multiplies and accumulates: its name, type, numerics, and the work of one run."""

    name: str
    operator: str
    numerics: str
    macs: float


def compute_nodes(path: Path, inputs: Mapping[str, np.ndarray]) -> list[ComputeNode]:
    """All multiply-accumulate nodes of an ONNX file, with the numerics of each and its work on these inputs.

    The graph is run once, unoptimized, under ONNX Runtime's profiler: shapes are those of a real run, also where
    they cannot be inferred, and a node inside a loop counts as often as it ran.
    """
    graphs = list(_graphs(onnx.load(path, load_external_data=False).graph))
    runs = _executed_shapes(path, inputs)
    types = {weight.name: weight.data_type for graph in graphs for weight in graph.initializer}
    nodes = [node for graph in graphs for node in graph.node]
    producers = {output: node for node in nodes for output in node.output}
    return [
        ComputeNode(
            node.name,
            node.op_type,
            _numerics(node, types, producers),
            sum(_macs(node.op_type, shapes) for shapes in runs[node.name]),
        )
        for node in nodes
        if node.op_type in _INTEGER | _FLOAT | {_BLOCKS} and node.name in runs
    ]


def share(path: Path, inputs: Mapping[str, np.ndarray], numerics: str) -> float:
    """The share of the multiply-accumulates that run in these numerics, 0 to 1; 0 for a graph without any."""
    nodes = compute_nodes(path, inputs)
    total = sum(node.macs for node in nodes)
    return sum(node.macs for node in nodes if node.numerics == numerics) / total if total else 0.0


def _executed_shapes(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, list[Shapes]]:
    """Input and output shapes of each execution by node name, from one profiled run."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.enable_profiling = True
    # A weight that was packed is missing among the inputs that the profiler writes down.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory() as folder:
        settings.profile_file_prefix = f"{folder}/shapes"
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    runs: dict[str, list[Shapes]] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            shapes = _dims(event["args"]["input_type_shape"]), _dims(event["args"]["output_type_shape"])
            runs.setdefault(event["name"].removesuffix("_kernel_time"), []).append(shapes)
    return runs


def _dims(typed: list[dict[str, list[int]]]) -> list[list[int]]:
    return [next(iter(each.values()), []) for each in typed]


def _macs(operator: str, shapes: Shapes) -> float:
    given, made = shapes
    if operator in _GEMM:
        return math.prod(given[0]) * made[0][-1]
    if "MatMul" in operator:
        return math.prod(made[0]) * given[0][-1]
    weight = given[3] if operator.startswith("QLinear") else given[1]
    if operator == "ConvTranspose":
        return math.prod(given[0]) * math.prod(weight[1:])
    if operator in _RECURRENT:
        return math.prod(given[0][:2]) * (math.prod(weight) + math.prod(given[2]))
    return math.prod(made[0]) * math.prod(weight[1:])


def _numerics(node: onnx.NodeProto, types: Mapping[str, int], producers: Mapping[str, onnx.NodeProto]) -> str:
    """int8 for integer kernels; what every operand was just dequantized from; else what the weights are kept in."""
    if node.op_type in _INTEGER:
        return "int8"
    if node.op_type == _BLOCKS:
        return _BITS[next(each.i for each in node.attribute if each.name == "bits")]
    operands = [producers.get(name) for name in node.input[:2]]
    points = [
        types.get(producer.input[2], TensorProto.UINT8) if len(producer.input) > _ZERO_POINT else TensorProto.UINT8
        for producer in operands
        if producer is not None and producer.op_type == "DequantizeLinear"
    ]
    if len(points) == len(operands):
        return "fp8" if TensorProto.FLOAT8E4M3FN in points else "int8"
    if any(types.get(each.input[0]) in _INT4 for each in operands if each is not None and each.input):
        return "int4"
    sources = set(node.input[:2]) | {
        producer.input[0] for producer in operands if producer is not None and producer.op_type == "Cast"
    }
    return next((_HALF[types[name]] for name in sorted(sources) if types.get(name) in _HALF), "fp32")


def weights_by_node(path: Path) -> dict[str, int]:
    """How many numbers the constant matrices have that a node reads, by the node's name."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {each.name: math.prod(each.dims) for each in graph.initializer if len(each.dims) > 1}
    return {node.name: sum(sizes.get(name, 0) for name in node.input) for node in graph.node}


def operator_counts(path: Path) -> dict[str, int]:
    """How many nodes of each type a graph has, subgraphs included."""
    counts: dict[str, int] = {}
    for graph in _graphs(onnx.load(path, load_external_data=False).graph):
        for node in graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _graphs(graph: onnx.GraphProto) -> Iterable[onnx.GraphProto]:
    """A graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def weight_range(path: Path) -> float:
    """The largest absolute float weight: fp16 ends at 65,504. What stands for infinity, as masks do, does not count."""
    proto = load_whole(path)
    floats = (
        numpy_helper.to_array(weight) for weight in proto.graph.initializer if weight.data_type == TensorProto.FLOAT
    )
    sizes = (np.abs(array[np.abs(array) < INFINITE]) for array in floats)
    return max((float(size.max()) for size in sizes if size.size), default=0.0)
