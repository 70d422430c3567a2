"""Multiply-accumulates of one run, against counts made on paper, and the numerics of each node."""

import ml_dtypes
import numpy as np
import onnx
import pytest
import small_graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from mlpack.quantization.coverage import compute_nodes, operator_counts, share, weight_range


def macs(model, **inputs):
    return {node.name: node.macs for node in compute_nodes(model.entry_path, inputs)}


def test_gemms_and_batched_matmuls(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="gemm", transB=1),
        helper.make_node("Unsqueeze", ["h", "axis"], ["u"], name="unsqueeze"),
        helper.make_node("MatMul", ["u", "v"], ["m"], name="matmul"),
    ]
    weights = {
        "w": small_graphs.random(5, 4), "b": small_graphs.random(5), "v": small_graphs.random(5, 7),
        "axis": np.array([1]),
    }  # fmt: skip
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 4]}, {"m": ["batch", 1, 7]}, weights)
    # Gemm: 3 rows × 5 outputs × 4 products; MatMul: 3 × 1 rows × 7 outputs × 5 products.
    assert macs(model, x=small_graphs.random(3, 4)) == {"gemm": 3 * 5 * 4, "matmul": 3 * 7 * 5}


def test_convolutions_plain_grouped_and_transposed(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="plain", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "d"], ["b"], name="depthwise", kernel_shape=[3, 3], strides=[2, 2], group=8),
        helper.make_node("ConvTranspose", ["b", "t"], ["c"], name="transposed", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weights = {
        "w": small_graphs.random(8, 3, 3, 3), "d": small_graphs.random(8, 1, 3, 3),
        "t": small_graphs.random(8, 5, 2, 2),
    }  # fmt: skip
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 3, 9, 9]}, {"c": ["batch", 5, 8, 8]}, weights)
    assert macs(model, x=small_graphs.random(2, 3, 9, 9)) == {
        "plain": 2 * 8 * 9 * 9 * (3 * 3 * 3),  # every output: input channels × kernel
        "depthwise": 2 * 8 * 4 * 4 * (1 * 3 * 3),  # (9 - 3) / 2 + 1 = 4; one input channel each
        "transposed": 2 * 8 * 4 * 4 * (5 * 2 * 2),  # every input: output channels × kernel
    }


def test_an_lstm(tmp_path):
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], name="lstm", hidden_size=6)]
    weights = {"w": small_graphs.random(1, 24, 5), "r": small_graphs.random(1, 24, 6)}
    model = small_graphs.save(tmp_path, nodes, {"x": [7, "batch", 5]}, {"h": [1, "batch", 6]}, weights)
    # 4 gates, each step and row: 6 × 5 of the input and 6 × 6 of the state.
    assert macs(model, x=small_graphs.random(7, 2, 5)) == {"lstm": 7 * 2 * 4 * (6 * 5 + 6 * 6)}


@given(rows=st.integers(1, 9), width=st.integers(1, 40))
@settings(max_examples=12)
def test_macs_grow_with_rows_and_width(tmp_path, rows, width):
    model = small_graphs.mlp(tmp_path, width)
    assert macs(model, x=small_graphs.random(rows, 8)) == {"first": rows * 8 * width, "last": rows * width * 3}


def test_fp32_is_the_whole_share_of_a_float_graph(tmp_path):
    model = small_graphs.mlp(tmp_path)
    inputs = {"x": small_graphs.random(1, 8)}
    assert share(model.entry_path, inputs, "fp32") == 1.0
    assert share(model.entry_path, inputs, "int8") == 0.0


def test_share_of_a_graph_with_one_of_two_products_in_int8(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="last"),
    ]
    weights = {"w1": small_graphs.random(8, 12), "w2": small_graphs.random(12, 4)}
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 8]}, {"y": ["batch", 4]}, weights)
    quantize_dynamic(model.entry_path, tmp_path / "one.onnx", nodes_to_quantize=["first"])
    inputs = {"x": small_graphs.random(2, 8)}
    assert share(tmp_path / "one.onnx", inputs, "int8") == pytest.approx(8 * 12 / (8 * 12 + 12 * 4))
    assert share(tmp_path / "one.onnx", inputs, "fp32") == pytest.approx(12 * 4 / (8 * 12 + 12 * 4))


def test_a_product_with_one_float_operand_is_not_int8(tmp_path):
    weight = numpy_helper.from_array(np.ones((8, 4), np.int8), "q")
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], name="dequantize"),
            helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        ],
        "weights only",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight, numpy_helper.from_array(np.float32(0.1), "scale")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "w.onnx")
    (node,) = compute_nodes(tmp_path / "w.onnx", {"x": small_graphs.random(2, 8)})
    assert node.numerics == "fp32"


def test_bf16_weights_behind_a_cast(tmp_path):
    weight = small_graphs.random(8, 4).astype(ml_dtypes.bfloat16)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["stored"], ["w"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        ],
        "bf16",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("stored", TensorProto.BFLOAT16, [8, 4], weight.tobytes(), raw=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "b.onnx")
    (node,) = compute_nodes(tmp_path / "b.onnx", {"x": small_graphs.random(2, 8)})
    assert (node.numerics, node.macs) == ("bf16", 2 * 8 * 4)


def test_a_graph_without_products_has_no_share(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, {})
    assert compute_nodes(model.entry_path, {"x": small_graphs.random(1, 4)}) == []
    assert share(model.entry_path, {"x": small_graphs.random(1, 4)}, "fp32") == 0.0


def test_counts_look_into_subgraphs(tmp_path):
    inside = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"], name="inside")],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch", 4])],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"], name="otherwise")],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["batch", 4])],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], name="if", then_branch=inside, else_branch=other)]
    weights = {"w": small_graphs.random(4, 4), "yes": np.array(True)}
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, weights)
    assert operator_counts(model.entry_path) == {"If": 1, "MatMul": 1, "Identity": 1}


def test_products_inside_a_loop_count_too(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"], name="again"),
            helper.make_node("MatMul", ["state", "w"], ["next"], name="step"),
        ],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [helper.make_node("Loop", ["times", "go_in", "x"], ["y"], name="loop", body=body)]
    weights = {"w": small_graphs.random(4, 4), "times": np.array(5), "go_in": np.array(True)}
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, weights)
    assert sum(macs(model, x=small_graphs.random(2, 4)).values()) == 5 * 2 * 4 * 4


def test_the_largest_weight(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    weight = small_graphs.random(4, 4)
    weight[1, 2] = -70000.0
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, {"w": weight})
    assert weight_range(model.entry_path) == 70000.0


def test_a_matrix_times_a_vector_and_a_broadcast_product(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "vector"], ["a"], name="vector"),
        helper.make_node("MatMul", ["x", "stack"], ["b"], name="stack"),
    ]
    weights = {"vector": small_graphs.random(8), "stack": small_graphs.random(5, 8, 3)}
    model = small_graphs.save(tmp_path, nodes, {"x": ["batch", 8]}, {"a": ["batch"], "b": [5, "batch", 3]}, weights)
    assert macs(model, x=small_graphs.random(4, 8)) == {"vector": 4 * 8, "stack": 5 * 4 * 3 * 8}
