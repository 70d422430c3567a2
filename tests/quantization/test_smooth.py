"""SmoothQuant: the graph computes what it did, and its activations become easier to quantize."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.smooth import smoothed

WIDTH = 16


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def graph():
    """LayerNorm → (Reshape → Gemm, MatMul, residual Add), the Gemm's weight transposed and tied to another product."""
    gain = np.ones(WIDTH, np.float32)
    gain[3] = 60.0  # the outlier
    weights = {
        "gain": gain, "shift": random(WIDTH, seed=1), "tied": random(8, WIDTH, seed=2), "bias": random(8, seed=3),
        "plain": random(WIDTH, WIDTH, seed=4), "flat": np.array([-1, WIDTH]),
    }  # fmt: skip
    weights["plain"][:, 5] = 0
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["normal"], name="block/norm"),
        helper.make_node("Reshape", ["normal", "flat"], ["rows"], name="reshape"),
        helper.make_node("Gemm", ["rows", "tied", "bias"], ["y"], name="gemm", transB=1),
        helper.make_node("MatMul", ["normal", "plain"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "normal"], ["z"], name="residual"),
        helper.make_node("Gemm", ["flat_x", "tied"], ["w"], name="other", transB=1),
    ]
    dims = ["batch", "length", WIDTH]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, dims), helper.make_tensor_value_info("flat_x", 1, ["batch", WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z", "w")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    )


def feeds(seed):
    return {"x": random(4, 5, WIDTH, seed=seed), "flat_x": random(4, WIDTH, seed=seed + 50)}


def run(graph, names):
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in {"y", "z", "w"})
    session = ort.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), feeds(9)), strict=True))


def spread(activations):
    each = np.abs(activations).reshape(-1, activations.shape[-1]).max(0)
    return float(each.max() / np.median(each))


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.9])
def test_the_graph_computes_what_it_did_on_smoother_activations(graph, strength):
    before = run(graph, ["y", "z", "w", "normal"])
    done = smoothed(graph, [feeds(1), feeds(2)], strength, threads=1, cut=True)
    assert done == ["normal"]
    onnx.checker.check_model(graph)
    after = run(graph, ["y", "z", "w", "normal", "normal_smoothed", "rows_smoothed"])
    for name in ("y", "z", "w", "normal"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-4)
    assert spread(after["normal_smoothed"]) < spread(before["normal"])
    assert np.array_equal(after["rows_smoothed"], after["normal_smoothed"].reshape(-1, WIDTH))
    names = {each.name for each in graph.graph.value_info}
    assert {"normal_smoothed", "rows_smoothed"} <= names, "a quantizer asks for their types"
    assert [node.name for node in graph.graph.node if node.op_type == "Mul"] == ["block/norm_smooth"]


def test_all_of_it_moves_or_nothing(graph):
    smoothed(graph, [feeds(9)], 1.0, threads=1, cut=True)
    largest = np.abs(run(graph, ["normal_smoothed"])["normal_smoothed"]).reshape(-1, WIDTH).max(0)
    np.testing.assert_allclose(largest, 1.0, rtol=1e-5)


def test_a_graph_without_normalizations_stays_as_it_is(graph):
    del graph.graph.node[:5]
    del graph.graph.output[:2]
    text = graph.SerializeToString()
    assert smoothed(graph, [feeds(1)], 0.5, threads=1, cut=True) == []
    assert graph.SerializeToString() == text
