"""fp8: the pairs of a symmetric int8 graph, in E4M3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.newer_opset import newer
from mlpack.quantization.qdq_graph import QdqGraph

if TYPE_CHECKING:
    from pathlib import Path

# The largest number of E4M3 (OCP 8-bit Floating Point Specification, 1.0).
E4M3_MAX = 448.0
_INT8_MAX = 127.0
# From here on ONNX quantizes to 8-bit floats.
OPSET = 19


def has_e4m3(proto: onnx.ModelProto) -> bool:
    """Whether anything in this graph is quantized to E4M3."""
    return any(each.data_type == TensorProto.FLOAT8E4M3FN for each in proto.graph.initializer)


def to_e4m3(path: Path) -> None:
    """Let every pair of int8 without zero point quantize to E4M3, so that its largest magnitude stays the largest.

    A step of int8 is `largest / 127`; a scale of E4M3 is `largest / 448` (Micikevicius et al., FP8 Formats for Deep
    Learning, arXiv 2209.05433). Values beyond saturate in both.

    Raises:
        StageFailed: the graph's opset is too old for such pairs, and it does not convert.
    """
    proto = newer(onnx.load(path, load_external_data=False), OPSET)
    graph = QdqGraph(proto, path.parent)
    nodes = [node for node in proto.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    scales = {node.input[1] for node in nodes}
    points = {node.input[2] for node in nodes}
    for name in points:
        kept = graph.constants[name]
        zeros = bytes(int(np.prod(kept.dims)))
        kept.CopyFrom(helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, kept.dims, zeros, raw=True))
    for name in scales:
        scale = (graph.array(name) * (_INT8_MAX / E4M3_MAX)).astype(np.float32)
        graph.constants[name].CopyFrom(numpy_helper.from_array(scale, name))
    # What is between two pairs was int8; shapes stay as they are.
    quantized = {tensor for node in nodes if node.op_type == "QuantizeLinear" for tensor in node.output}
    for value in proto.graph.value_info:
        if value.name in quantized:
            value.type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN
    onnx.save(proto, path)
