"""Shapes of a graph's tensors at given sizes, also where they follow from the sizes by arithmetic in the graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

Shape = tuple[int, ...]

SHAPE_ELEMENTS = 64
"""A constant with more elements than that is no shape."""
# What exporters compute lengths and positions with; `onnx.shape_inference` follows no Range of a computed length.
_ARITHMETIC = {
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Range", "Slice", "Squeeze", "Sub", "Unsqueeze",
}  # fmt: skip
_MOST_ELEMENTS = 1 << 16


def shapes_of(proto: onnx.ModelProto) -> dict[str, Shape]:
    """Every tensor of which all dims are known, in a graph whose inputs have sizes; large constants lose their data."""
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) > SHAPE_ELEMENTS:
            for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(name)
    known: dict[str, np.ndarray] = {}
    while True:
        found = _inferred(proto, known)
        more = _computed(proto, found, known)
        if len(more) == len(known):
            return found
        known = more


def _inferred(proto: onnx.ModelProto, known: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """With tensors whose values are known as constants."""
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    del given.graph.node[:]
    given.graph.node.extend(node for node in proto.graph.node if not known.keys() & set(node.output))
    given.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in known.items())
    graph = onnx.shape_inference.infer_shapes(given, data_prop=True).graph
    found: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return found


def _computed(
    proto: onnx.ModelProto, shapes: Mapping[str, Shape], known: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The integers that follow from known shapes and from what was known before, by the name of their tensor."""
    import numpy as np

    small = [each for each in proto.graph.initializer if math.prod(each.dims) <= SHAPE_ELEMENTS]
    values = {each.name: numpy_helper.to_array(each) for each in small} | dict(known)
    found = dict(known)
    for node in proto.graph.node:
        value: np.ndarray | None = None
        name = node.output[0] if len(node.output) == 1 else ""
        if not name or name in known:
            continue
        if node.op_type == "Shape" and node.input[0] in shapes:
            bounds = {each.name: each.i for each in node.attribute}
            value = np.array(shapes[node.input[0]][slice(bounds.get("start"), bounds.get("end"))], np.int64)
        elif node.op_type in _ARITHMETIC and all(each in values for each in node.input if each):
            value = _run(proto, node, values)
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            values[name] = numpy_helper.to_array(node.attribute[0].t)
        if value is not None and value.dtype.kind in "iub" and value.size <= _MOST_ELEMENTS:
            values[name] = found[name] = value
    return found


def _run(proto: onnx.ModelProto, node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    feeds = {name: values[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    # Of whatever type and shape it is.
    outputs = [helper.make_empty_tensor_value_info(node.output[0])]
    graph = helper.make_graph([node], "one", inputs, outputs)
    model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    try:
        value: np.ndarray = ReferenceEvaluator(model).run(None, feeds)[0]
    except (IndexError, ValueError):
        # A size that nobody gave is 1, which not every graph bears.
        return None
    return value
