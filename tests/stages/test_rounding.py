"""Adaptive rounding: weights move by a step at most, and layers answer nearer to what they did in float."""

import numpy as np
import onnx
import pytest
from doors import A100, AVX2, VNNI, answers, relative, rows_for
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mlpack.core.model import Model, TensorSpec
from mlpack.quantization.rounding import round_adaptively
from mlpack.stages.quantize import Quantize

# Operator, attributes, the weight's dims, and those of a row.
KINDS = {
    "Gemm": ({}, (24, 6), (24,)),
    "Gemm turned": ({"transB": 1}, (6, 24), (24,)),
    "MatMul": ({}, (24, 6), (3, 24)),
    "Conv": ({"pads": [1, 0, 1, 2], "strides": [2, 1]}, (6, 4, 3, 3), (4, 7, 6)),
    "Conv grouped": ({"group": 2, "dilations": [1, 2]}, (6, 2, 3, 2), (4, 7, 6)),
    "Conv depthwise": ({"group": 4}, (4, 1, 3, 3), (4, 7, 6)),
}


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows_like(count, dims, seed=0):
    """Rows whose parts have much in common, as activations have: there roundings can make up for one another."""
    shared = random(count, *[1] * len(dims), seed=seed)
    return {"x": np.abs(2 * shared + 0.3 * random(count, *dims, seed=seed + 1))}


def one_product(folder, kind, seed=0):
    attributes, dims, row = KINDS[kind]
    weights = {"w": random(*dims, seed=seed)}
    node = helper.make_node(kind.partition(" ")[0], ["x", "w"], ["y"], name="one", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *row])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "model.onnx")
    specs = [TensorSpec(name=name, dtype="float32", dims=("batch", *row)) for name in ("x", "y")]
    return Model(path=folder, entry="model.onnx", format="onnx", inputs=(specs[0],), outputs=(specs[1],)), row


def quantized(bench, model, rows, target, **options):
    told = {"numerics": "int8", "method": "static", "operators": "weighted", **options}
    return Quantize(**told).run(model, bench.job(parts={"calibration": bench.data(**rows)}, target=target)).model


def weights_of(model):
    """The dequantized weight of the product and its steps."""
    graph = onnx.load(model.entry_path).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    (product,) = [node for node in graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]
    pair = maker[product.input[1]]
    scale, name = constants[pair.input[1]], pair.input[0]
    values = constants[maker[name].input[0] if name in maker else name]
    axis = next((each.i for each in pair.attribute if each.name == "axis"), 0)
    scale = scale.reshape([-1 if index == axis else 1 for index in range(values.ndim)])
    return (values.astype(np.float64) * scale if values.dtype == np.int8 else values), scale


@pytest.mark.parametrize("target", [VNNI, AVX2, A100], ids=lambda target: target.name)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_answer_nearer_to_what_they_did(bench, tmp_path, kind, target):
    model, dims = one_product(tmp_path, kind)
    plain, done = (
        quantized(bench, model, rows_like(64, dims), target, rounding=told) for told in ("nearest", "adaptive")
    )
    (was, scale), (now, same) = weights_of(plain), weights_of(done)
    assert np.array_equal(scale, same)
    exact = numpy_helper.to_array(onnx.load(model.entry_path).graph.initializer[0])
    assert not np.allclose(was, now, atol=1e-6)
    assert (np.abs(now - exact) / scale).max() < 1.001, "up or down, not further"
    unseen = rows_like(64, dims, seed=7)
    expected = answers(model, unseen)["y"]
    assert relative(expected, answers(done, unseen)["y"]) < relative(expected, answers(plain, unseen)["y"])


@given(seed=st.integers(0, 50), kind=st.sampled_from(["Gemm", "Gemm turned", "MatMul"]), count=st.integers(1, 80))
def test_what_is_descended_never_rises(kept, seed, kind, count):
    """The sum of squares of what rows lose, in steps of each output, with the share of the damping."""
    model, dims = one_product(kept.job().out, kind, seed)
    rows = rows_like(count, dims, seed)
    made = quantized(kept, model, rows, VNNI)
    exact = numpy_helper.to_array(onnx.load(model.entry_path).graph.initializer[0])
    graph = onnx.load(made.entry_path).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    (pair,) = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x"]
    step, zero = (constants[name] for name in pair.input[1:])
    seen = (np.clip(np.rint(rows["x"] / step) + zero, 0, 255) - zero) * step
    seen = seen.reshape(-1, exact.shape[1 if kind == "Gemm turned" else 0])

    def lost():
        now, scale = weights_of(made)
        error = ((now - exact) / scale).astype(np.float64)
        error = error.T if kind == "Gemm turned" else error
        return np.square(seen @ error).sum() + 0.01 * np.square(seen).sum() / len(error) * np.square(error).sum()

    before = lost()
    told = {"threads": 1, "cut": False, "seed": 0}
    assert round_adaptively(onnx.load(model.entry_path), made.entry_path, [rows], **told) == ["one"]
    assert lost() <= 1.0001 * before


@pytest.mark.parametrize(
    ("name", "operators", "target"),
    [("conv_net", "all", VNNI), ("transformer", "weighted", A100)],
    ids=lambda value: getattr(value, "name", value),
)
def test_whole_models_answer_nearly_the_same(bench, kept, name, operators, target):
    ready = kept.ready(name)
    plain, done, both = (
        quantized(bench, ready, rows_for(name, 64), target, operators=operators, **told)
        for told in ({}, {"rounding": "adaptive"}, {"rounding": "adaptive", "bias_correction": True})
    )
    rows = rows_for(name, 32, seed=5)
    expected, was, got, corrected = (answers(each, rows)["output"] for each in (ready, plain, done, both))
    assert not np.array_equal(was, got)
    assert relative(expected, got) < 1.3 * relative(expected, was)
    assert relative(expected, corrected) < 1.3 * relative(expected, was)
