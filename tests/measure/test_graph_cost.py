"""What a graph costs at the least: counted right, never too much, and never above a measurement."""

import math
import os
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mlpack.core.targets import load_target, targets
from mlpack.measure.graph_cost import GraphCost, graph_cost
from mlpack.measure.roofline import floors_ms, largest_batch

SMALL = st.integers(1, 7)


def saved(folder, nodes, inputs, weights, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            onnx.numpy_helper.from_array(np.full(shape, 0.01, np.float32), name) for name, shape in weights.items()
        ],
    )  # fmt: skip
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@given(rows=SMALL, inner=SMALL, columns=SMALL, batch=SMALL)
@settings(deadline=None, max_examples=30)
def test_a_product_counts_each_multiplication_and_addition(folder, rows, inner, columns, batch):
    path = saved(
        folder, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", rows, inner]}, {"w": (inner, columns)}
    )
    cost = graph_cost(path, {"n": batch})
    loops = sum(2 for _ in np.ndindex(batch, rows, columns, inner))
    assert cost.operations == cost.least_operations == loops
    assert cost.weights == inner * columns
    assert cost.bytes_io == 4 * batch * rows * (inner + columns)


@given(channels=SMALL, filters=SMALL, groups=st.integers(1, 3), kernel=st.integers(1, 4), stride=st.integers(1, 2))
@settings(deadline=None, max_examples=30)
def test_a_convolution_counts_what_it_reads_for_each_output(folder, channels, filters, groups, kernel, stride):
    shape = (filters * groups, channels, kernel, kernel)
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, strides=[stride, stride])
    path = saved(folder, [node], {"x": ["n", channels * groups, 8, 8]}, {"w": shape})
    cost = graph_cost(path, {"n": 2})
    session = onnxruntime.InferenceSession(path)
    answer = session.run(None, {"x": np.ones((2, channels * groups, 8, 8), np.float32)})[0]
    # Of ones, each output is 0.01 times the number of products that it sums.
    assert cost.operations == pytest.approx(2 * answer.sum() / 0.01, rel=1e-3)
    assert cost.least_operations <= cost.operations
    assert (cost.least_operations == cost.operations) == (kernel == 1)


@given(batch=st.integers(1, 50))
@settings(deadline=None, max_examples=20)
def test_operations_grow_with_the_batch_and_weights_do_not(folder, batch):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    path = saved(folder, [node], {"x": ["n", 12]}, {"w": (5, 12)})
    one, many = graph_cost(path, {}), graph_cost(path, {"n": batch})
    assert many.operations == batch * one.operations == batch * 2 * 5 * 12
    assert many.weights == one.weights


def test_what_constants_decide_and_what_no_output_needs_costs_nothing(folder):
    nodes = [
        helper.make_node("MatMul", ["w", "w"], ["constant"]),
        helper.make_node("MatMul", ["x", "w"], ["unused"]),
        helper.make_node("Add", ["x", "constant"], ["y"]),
    ]
    assert graph_cost(saved(folder, nodes, {"x": ["n", 4]}, {"w": (4, 4)}), {"n": 3}).operations == 0


def test_a_table_that_is_looked_up_in_is_not_read_whole(folder):
    nodes = [
        helper.make_node("Cast", ["x"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "at"], ["y"]),
    ]
    assert graph_cost(saved(folder, nodes, {"x": ["n"]}, {"w": (1000, 8)}), {}).weights == 0


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_multiplies_inputs_and_state_for_each_gate(folder, kind, gates):
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], hidden_size=5)
    path = saved(folder, [node], {"x": [7, "n", 3]}, {"w": (1, gates * 5, 3), "r": (1, gates * 5, 5)})
    assert graph_cost(path, {"n": 2}).operations == 2 * 7 * 2 * gates * 5 * (3 + 5)


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_the_floor_is_never_above_a_measurement(folder, batch):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = saved(folder, nodes, {"x": ["n", 32, 16, 16]}, {"k": (64, 32, 3, 3), "w": (64 * 256, 256)})
    session = onnxruntime.InferenceSession(path)
    floors = floors_ms(graph_cost(path, {"n": batch}), load_target("cpu"), os.cpu_count())
    rows, best = np.ones((batch, 32, 16, 16), np.float32), math.inf
    # A machine that is busy makes the measurement longer, and the bound hold all the more.
    for _ in range(20):
        started = time.perf_counter()
        session.run(None, {"x": rows})
        best = min(best, (time.perf_counter() - started) * 1e3)
    assert 0 < floors["fp32"] <= best


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_fewer_bits_and_fewer_operations_have_no_higher_floor(target):
    small, large = (GraphCost((), weights, 0, 20) for weights in (10**6, 10**10))
    assert all(ms >= 0 for ms in floors_ms(small, target, 2).values())
    for numerics, ms in floors_ms(small, target, 2).items():
        assert ms <= floors_ms(large, target, 2)[numerics]


def test_weights_beyond_the_cache_have_to_be_read_at_the_bandwidth():
    a100 = load_target("a100")
    assert floors_ms(GraphCost((), 10**10, 0, 20), a100)["fp16"] == pytest.approx(2e10 / 1555e9 * 1e3, rel=0.01)
    assert floors_ms(GraphCost((), 10**6, 0, 20), a100)["fp16"] == 0


def test_what_fits_the_memory():
    assert largest_batch(10**9, 10**6, load_target("a100")) == (40 - 4) * 1000
    assert largest_batch(10**11, 10**6, load_target("a100")) == 0
    assert largest_batch(1, 1, load_target("zen4")) is None
