"""A node that stays in float reads what was there before a Q/DQ pair was put in."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.placement import between_convolutions, pair_summands, signed_factors, spare_float_readers


def pair(tensor):
    return [
        helper.make_node("QuantizeLinear", [tensor, "step", "zero"], [f"{tensor}_q"], name=f"{tensor}_q"),
        helper.make_node("DequantizeLinear", [f"{tensor}_q", "step", "zero"], [f"{tensor}_dq"], name=f"{tensor}_dq"),
    ]


@pytest.fixture
def graph():
    """x → pair → (MatMul → pair → Relu → y, Add of x and itself → z)."""
    nodes = [
        *pair("x"),
        helper.make_node("MatMul", ["x_dq", "w"], ["m"], name="product"),
        *pair("m"),
        helper.make_node("Relu", ["m_dq"], ["y"], name="relu"),
        helper.make_node("Add", ["x_dq", "x_dq"], ["z"], name="sum"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("y", "z")],
        [
            numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
            numpy_helper.from_array(np.float32(0.5), "step"),
            numpy_helper.from_array(np.uint8(128), "zero"),
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(graph):
    x = np.array([[0.2, -0.3, 1.26, 3.0]], np.float32)
    return x, ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})


def test_a_sum_beside_a_quantized_product_adds_up_what_was_not_rounded(graph):
    x, (_, rounded) = run(graph)
    assert not np.allclose(rounded, 2 * x)
    assert spare_float_readers(graph, lambda node: node.op_type == "MatMul", ()) == 2
    onnx.checker.check_model(graph)
    x, (y, z) = run(graph)
    np.testing.assert_array_equal(z, 2 * x)
    np.testing.assert_array_equal(y, np.maximum(0, np.round(x / 0.5) * 0.5))


def test_what_an_integer_kernel_gives_keeps_its_pair_unless_it_may_give_floats(graph):
    spare_float_readers(graph, lambda node: node.op_type == "MatMul", ())
    assert "m_dq" in graph.graph.node[-2].input
    spare_float_readers(graph, lambda node: node.op_type == "MatMul", ("MatMul",))
    assert list(graph.graph.node[-2].input) == ["m"]
    assert not any(node.name.startswith("m_") for node in graph.graph.node), "a pair that nobody reads is gone"
    onnx.checker.check_model(graph)


def test_where_all_readers_are_quantized_nothing_changes(graph):
    before = graph.SerializeToString()
    assert spare_float_readers(graph, lambda node: bool(node.name), ()) == 0
    assert graph.SerializeToString() == before


def pooled(step_behind):
    """x → pair → MatMul → m → pair → MaxPool → p → pair of another step → MatMul → (sum with p) → y."""
    nodes = [
        *pair("x"),
        helper.make_node("MatMul", ["x_dq", "w"], ["m"], name="product"),
        *pair("m"),
        helper.make_node("MaxPool", ["m_dq"], ["p"], name="pool", kernel_shape=[2]),
        helper.make_node("QuantizeLinear", ["p", "finer", "zero"], ["p_q"], name="p_q"),
        helper.make_node("DequantizeLinear", ["p_q", "finer", "zero"], ["p_dq"], name="p_dq"),
        helper.make_node("MatMul", ["p_dq", "v"], ["o"], name="second"),
        helper.make_node("Add", ["o", "p_dq"], ["y"], name="sum"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 3])],
        [
            numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
            numpy_helper.from_array(np.zeros((3, 3), np.float32), "v"),
            numpy_helper.from_array(np.float32(0.5), "step"),
            numpy_helper.from_array(np.float32(step_behind), "finer"),
            numpy_helper.from_array(np.uint8(128), "zero"),
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("step_behind", [0.5, 0.3])
def test_a_pool_of_integers_gives_integers_to_all_its_readers_and_rounds_nothing_twice(step_behind):
    graph = pooled(step_behind)
    spare_float_readers(graph, lambda node: node.op_type == "MatMul", ())
    onnx.checker.check_model(graph)
    nodes = {node.name: node for node in graph.graph.node}
    assert list(nodes["sum"].input) == ["o", "p_dq"]
    assert nodes["second"].input[0] == "p_dq"
    assert "finer" not in {each.name for each in graph.graph.initializer}, "a step that nobody reads is gone"
    x = np.random.default_rng(0).uniform(-3, 3, (5, 2, 4)).astype(np.float32)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    rounded = np.round(x / 0.5) * 0.5
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(rounded[..., :-1], rounded[..., 1:]))


def test_a_pool_of_floats_stays_one_of_floats():
    graph = pooled(0.3)
    spare_float_readers(graph, lambda node: node.op_type == "MatMul", ("MatMul",))
    assert list(graph.graph.node[-1].input) == ["o", "p"]
    assert "finer" in next(node for node in graph.graph.node if node.name == "p_q").input


@pytest.fixture
def residual():
    """x → pair → MatMul → m → pair → Add(m, x) → y: what a convolution and its shortcut come to."""
    nodes = [
        *pair("x"),
        helper.make_node("MatMul", ["x_dq", "w"], ["m"], name="product"),
        *pair("m"),
        helper.make_node("Add", ["m_dq", "x"], ["y"], name="sum"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
            numpy_helper.from_array(np.float32(0.5), "step"),
            numpy_helper.from_array(np.uint8(128), "zero"),
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def is_sum(node):
    return node.op_type == "Add"


def is_product(node):
    return node.op_type == "MatMul"


def test_a_summand_beside_a_kernel_that_adds_up_is_rounded_and_the_other_is_not(residual):
    assert pair_summands(residual, is_product, ("MatMul",), {"x": 3.0, "m": 3.0}) == 1
    onnx.checker.check_model(residual)
    last = residual.graph.node[-1]
    assert last.input[0] == "m", "no pair stands between the product and the sum"
    assert last.input[1] == "sum_beside_dequantized"
    assert not any(node.name.startswith("m_") for node in residual.graph.node)
    x, (y,) = run(residual)
    step = 3 / 127
    np.testing.assert_allclose(y, np.round(x / 0.5) * 0.5 + np.round(x / step) * step, rtol=1e-6)


@pytest.mark.parametrize(
    ("summed", "largest", "quantized"),
    [((), {"x": 3.0}, is_product), (("MatMul",), {"x": 3.0}, is_sum)],
    ids=["no such kernel", "a product that stays in float"],
)
def test_other_sums_stay_as_they_are(residual, summed, largest, quantized):
    before = residual.SerializeToString()
    assert pair_summands(residual, quantized, summed, largest) == 0
    assert residual.SerializeToString() == before


def test_a_summand_that_calibration_did_not_see_stays_and_zeros_have_a_step(residual):
    seen = onnx.ModelProto()
    seen.CopyFrom(residual)
    assert pair_summands(seen, is_product, ("MatMul",), {"m": 3.0}) == 0
    assert list(seen.graph.node[-1].input) == ["m", "x"]
    assert pair_summands(residual, is_product, ("MatMul",), {"x": 0.0}) == 1
    assert np.isfinite(run(residual)[1][0]).all()


def test_a_sum_with_a_constant_is_a_bias(residual):
    residual.graph.node[-1].input[1] = "w"
    assert pair_summands(residual, is_product, ("MatMul",), {"w": 1.0}) == 0


def test_factors_are_what_two_activations_are_multiplied_by():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="weighted"),
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="one"),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("MatMul", ["shares", "v"], ["y"], name="two"),
        helper.make_node("MatMul", ["q", "left"], ["z"], name="excluded"),
        helper.make_node("Mul", ["q", "other"], ["elementwise"]),
    ]
    made = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")])
    lowest = {"x": -1.0, "q": -2.0, "k": -0.5, "scores": -3.0, "shares": 0.0, "v": -1.0, "left": -1.0, "other": -1.0}
    graph = helper.make_model(made)
    assert signed_factors(graph, lambda node: node.name != "excluded", lowest) == ["q", "k", "v"]
    assert signed_factors(graph, bool, {}) == []


def test_what_a_convolution_shares_with_one_other_node_may_lose_its_zero_point():
    """x → Conv → a → Relu → r → (Conv → b → Sigmoid, b → Mul) and r → Conv of floats → c → Neg."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w"], ["b"], name="second"),
        helper.make_node("Sigmoid", ["b"], ["s"], name="sigmoid"),
        helper.make_node("Mul", ["b", "s"], ["y"], name="gated"),
        helper.make_node("Conv", ["r", "w"], ["c"], name="left"),
        helper.make_node("Neg", ["c"], ["z"], name="negated"),
    ]
    graph = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert between_convolutions(graph, lambda node: node.name != "left") == ["x", "a"]
