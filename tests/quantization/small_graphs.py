"""ONNX graphs written by hand, small enough to count their multiply-accumulates on paper."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlpack.core.model import Model, TensorSpec

OPSET = 20


def save(folder, nodes, inputs, outputs, weights, dtype=TensorProto.FLOAT):
    """Write a graph and give it as a Model. `inputs` and `outputs` are dims by name, `weights` arrays by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, dtype, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(proto)
    onnx.save(proto, folder / "model.onnx")
    return Model(
        path=folder,
        entry="model.onnx",
        format="onnx",
        inputs=tuple(TensorSpec(name=name, dtype="float32", dims=tuple(dims)) for name, dims in inputs.items()),
        outputs=tuple(TensorSpec(name=name, dtype="float32", dims=tuple(dims)) for name, dims in outputs.items()),
    )


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def mlp(folder, width=16):
    """[batch, 8] → Gemm → Relu → Gemm → [batch, 3]."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="last"),
    ]
    weights = {
        "w1": random(8, width), "b1": random(width, seed=1), "w2": random(width, 3, seed=2), "b2": random(3, seed=3),
    }  # fmt: skip
    return save(folder, nodes, {"x": ["batch", 8]}, {"y": ["batch", 3]}, weights)


def mlp_by_numpy(model, x):
    """What the graph of `mlp` answers, computed without any runtime."""
    weights = {each.name: numpy_helper.to_array(each) for each in onnx.load(model.entry_path).graph.initializer}
    return np.maximum(x @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"]
