"""A prediction: prices that are learnt as they were set, amounts counted as they are, and never below the floor."""

from datetime import date

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mlpack.api.floor import Counted
from mlpack.api.prediction import prediction_of
from mlpack.core.efficiency import learnt
from mlpack.core.targets import targets
from mlpack.measure.graph_cost import graph_cost
from mlpack.measure.graph_work import COUNTED, RATED
from mlpack.measure.prediction import Measured, learn, predicted_ms, rests_on, seconds_of
from mlpack.measure.roofline import floors_ms, unit

RATE = 1e11
EFFICIENCY = {"convolution": 0.4, "depthwise": 0.05, "product": 0.6, "recurrent": 0.02}
NANOSECONDS = {"move": 0.3, "weights": 0.1, "nodes": 900.0, "calls": 5000.0}


def drawn(seed, count=40, noise=0.0):
    """Timings at known prices of amounts as graphs have them: not every kind in each."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        work = {kind: float(10 ** draw.uniform(5, 10)) for kind in EFFICIENCY if draw.random() < 0.7}
        work |= {kind: float(10 ** draw.uniform(3, 7)) for kind in ("move", "weights")}
        work |= {"nodes": float(draw.integers(5, 200)), "calls": 1.0}
        rows.append(Measured(work, seconds_of(work, EFFICIENCY, NANOSECONDS, RATE) * draw.normal(1, noise)))
    return rows


def test_prices_are_learnt_as_they_were_set():
    efficiency, nanoseconds = learn(drawn(0), RATE)
    assert efficiency == pytest.approx(EFFICIENCY, rel=1e-6)
    assert nanoseconds == pytest.approx(NANOSECONDS, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_one_model_unlike_the_others_change_them_little(seed):
    rows = drawn(seed, noise=0.05)
    odd = rows[0]._replace(seconds=10 * rows[0].seconds)
    efficiency, _ = learn([odd, *rows[1:]], RATE)
    assert efficiency == pytest.approx(EFFICIENCY, rel=0.25)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_no_price_is_negative_and_no_unit_does_more_than_its_peak(seed, faster):
    """However little the timings fit the amounts: such a prediction is never below the floor of the operators."""
    draw = np.random.default_rng(seed)
    rows = [row._replace(seconds=row.seconds / faster * draw.uniform(0.1, 10)) for row in drawn(seed, count=12)]
    efficiency, nanoseconds = learn(rows, RATE)
    assert all(0 < each <= 1 + 1e-9 for each in efficiency.values())
    assert all(each >= 0 for each in nanoseconds.values())
    for row in rows:
        operators = sum(amount for kind, amount in row.work.items() if kind in RATED)
        assert seconds_of(row.work, efficiency, nanoseconds, RATE) >= operators / RATE * (1 - 1e-9)


def saved(folder, nodes, inputs, weights, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def key(row):
    return row.backend, row.numerics, row.method, row.unit, row.threads


def ones(*shape):
    return np.ones(shape, np.float32)


def test_each_kind_of_work_is_counted(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], pads=[1, 1, 1, 1], group=6),
        helper.make_node("Add", ["e", "r"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["p"]),
        helper.make_node("Softmax", ["p"], ["y"]),
    ]
    weights = {"k": ones(6, 3, 3, 3), "d": ones(6, 1, 3, 3), "w": ones(96, 5)}
    work = graph_cost(saved(tmp_path, nodes, {"x": ["n", 3, 4, 4]}, weights), {"n": 2}).work
    assert work == {
        "convolution": 2 * 2 * 96 * 27,
        "depthwise": 2 * 2 * 96 * 9,
        "product": 2 * 2 * 5 * 96,
        "move": 3 * 2 * 96 + 2 * 2 * 5,
        "weights": 6 * 27 + 6 * 9 + 96 * 5,
        "kernels": 3,
        "nodes": 3,
        "calls": 1,
    }, "the Relu is part of the convolution, and Flatten moves nothing"


def test_a_graph_with_quantized_pairs_does_the_work_of_its_float_graph(tmp_path):
    conv = helper.make_node("Conv", ["x", "k"], ["c"])
    relu, weights = helper.make_node("Relu", ["c"], ["y"]), ones(4, 3, 3, 3)
    plain = graph_cost(saved(tmp_path, [conv, relu], {"x": ["n", 3, 8, 8]}, {"k": weights}), {})
    pairs = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["kq", "scale", "kz"], ["kd"]),
        helper.make_node("Conv", ["xd", "kd"], ["c"]),
        relu,
    ]
    integers = {
        "scale": np.float32(0.1), "zero": np.uint8(128), "kz": np.int8(0), "kq": weights.astype(np.int8),
    }  # fmt: skip
    quantized = graph_cost(saved(tmp_path, pairs, {"x": ["n", 3, 8, 8]}, integers), {})
    scales = quantized.work["weights"] - plain.work["weights"]
    assert 0 <= scales <= 4, "scales and zero points"
    assert {**quantized.work, "weights": 0} == {**plain.work, "weights": 0}


def test_ranges_of_a_batch_cost_no_nodes_of_their_own(tmp_path):
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    plain = graph_cost(saved(tmp_path, [product], {"x": ["n", 8]}, {"w": ones(8, 5)}), {"n": 3})
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "steps"], ["both"]),
        helper.make_node("Mul", ["floats", "both"], ["y"]),
    ]
    weights = {"w": ones(8, 5).astype(np.int8), "steps": ones(5)}
    assert graph_cost(saved(tmp_path, nodes, {"x": ["n", 8]}, weights), {"n": 3}).work == {
        **plain.work,
        "weights": plain.work["weights"] + 5,
    }


def test_a_recurrent_layer_counts_its_steps_and_a_product_of_activations_is_one_as_any(tmp_path):
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], hidden_size=5),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),
    ]
    path = saved(tmp_path, nodes, {"x": [7, "n", 3]}, {"w": ones(1, 20, 3), "r": ones(1, 20, 5)})
    work = graph_cost(path, {"n": 2}).work
    assert (work["steps"], work["kernels"], work["nodes"]) == (7, 2, 1)
    assert work["product"] == 2 * 7 * 2 * 2 * 5


def test_nothing_is_counted_of_a_graph_whose_shapes_are_known_when_it_runs(tmp_path):
    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Cast", ["at"], ["y"], to=TensorProto.FLOAT)]
    cost = graph_cost(saved(tmp_path, nodes, {"x": ["n", 3]}, {}), {})
    assert cost.work == {}
    for target in targets():
        rows, reason = rests_on(cost, target, "fp32", 1)
        assert not rows
        assert reason


def test_shapes_are_followed_through_lengths_that_the_graph_computes(tmp_path):
    """As positions are made: shape inference alone stops at a Range of a length that follows from an input."""
    nodes = [
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Squeeze", ["length"], ["scalar"]),
        helper.make_node("Range", ["zero", "scalar", "one"], ["positions"]),
        helper.make_node("Cast", ["positions"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "numbers"], ["moved"]),
        helper.make_node("Transpose", ["moved"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["moved", "turned"], ["y"]),
    ]
    weights = {"zero": np.int64(0), "one": np.int64(1)}
    cost = graph_cost(saved(tmp_path, nodes, {"x": ["n", "tokens"]}, weights), {"n": 5, "tokens": 7})
    assert cost.operations == cost.work["product"] == 2 * 5 * 5 * 7
    assert cost.work["nodes"] == 6


@pytest.mark.parametrize("row", learnt(), ids=lambda row: "-".join(map(str, key(row))))
def test_a_row_of_the_catalogue_says_what_was_learnt_and_where(row):
    assert set(row.efficiency) <= set(RATED)
    assert set(row.nanoseconds) <= set(COUNTED)
    assert all(0 < each <= 1 for each in row.efficiency.values())
    assert all(each >= 0 for each in row.nanoseconds.values())
    assert row.median_error <= row.most_error
    assert date.fromisoformat(row.date) >= date(2026, 1, 1)
    assert [key(each) for each in learnt()].count(key(row)) == 1


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    weights = {"k": ones(16, 3, 3, 3), "w": ones(4096, 10)}
    return saved(tmp_path_factory.mktemp("network"), nodes, {"x": ["n", 3, 16, 16]}, weights)


def test_a_prediction_is_never_below_the_floor_and_grows_with_the_batch(network):
    costs = [graph_cost(network, {"n": batch}) for batch in (1, 2, 8, 64)]
    seen = set()
    for target in targets():
        for numerics, threads in {(row.numerics, row.threads) for row in learnt()}:
            if numerics not in target.numerics:
                continue
            for row in rests_on(costs[0], target, numerics, threads)[0]:
                ms = [predicted_ms(cost, target, row) for cost in costs]
                floors = [floors_ms(cost, target, threads)[numerics] for cost in costs]
                assert all(each >= floor for each, floor in zip(ms, floors, strict=True))
                assert ms == sorted(ms)
                assert ms[0] < ms[-1]
                seen.add(key(row))
    assert seen == {key(row) for row in learnt()}


def test_what_was_not_learnt_is_not_predicted_and_the_reason_is_told(network):
    cost = graph_cost(network, {})
    row = learnt()[0]
    by_name = {target.name: target for target in targets()}

    def refusal(target, numerics=row.numerics, threads=row.threads, **more):
        rows, reason = rests_on(cost, target, numerics, threads, **more)
        assert bool(rows) != bool(reason)
        return reason

    assert "GPU" in refusal(by_name["a100"])
    assert refusal(by_name["raspberry-pi-4"], "fp32").endswith("asimd")
    assert refusal(by_name["sapphire-rapids"], "int4") == "not learnt"
    same = next(target for target in targets() if not refusal(target))
    assert "not with 99" in refusal(same, threads=99)
    assert refusal(same, backend="torch").endswith("and this runs on torch")
    assert refusal(same, "int8", method="smoothed").endswith("and this is smoothed")
    few, most = same.model_copy(update={"cores": 1}), max(each.threads for each in learnt() if each.unit == row.unit)
    assert refusal(few, threads=most) == f"it has 1 core, not {most}"


def test_a_backend_and_a_method_have_prices_of_their_own(network):
    cost = graph_cost(network, {"n": 1})
    row = next(each for each in learnt() if each.method is not None)
    target = next(each for each in targets() if rests_on(cost, each, row.numerics, row.threads)[0])
    every, _ = rests_on(cost, target, row.numerics, row.threads)
    assert len({key(each) for each in every}) == len(every) > 1
    for each in every:
        assert rests_on(cost, target, row.numerics, row.threads, backend=each.backend, method=each.method)[0] == [each]


def test_what_is_told_is_the_fastest_of_what_was_near_enough(network):
    costs = {batch: graph_cost(network, {"n": batch}) for batch in (1, 8)}
    counted = Counted(tuple(costs), costs, {})
    several = 0
    for target in (each for each in targets() if not each.here):
        for threads in {row.threads for row in learnt()}:
            told = prediction_of(counted, target, threads)
            for numerics, known in told.rests_on.items():
                every, _ = rests_on(costs[1], target, numerics, threads)
                near = [row for row in every if row.median_error <= 0.3] or every
                fastest = min(
                    near, key=lambda row: np.prod([predicted_ms(each, target, row) for each in costs.values()])
                )
                assert (known["backend"], known["method"]) == (fastest.backend, fastest.method)
                assert told.predicted_ms[8][numerics] == predicted_ms(costs[8], target, fastest)
                only = prediction_of(counted, target, threads, every[-1].backend).rests_on[numerics]
                assert only["backend"] == every[-1].backend
                several += len(near) > 1
    assert several


def test_a_kind_of_operator_that_nothing_was_learnt_of_is_named(tmp_path):
    node = helper.make_node("ConvTranspose", ["x", "k"], ["y"])
    cost = graph_cost(saved(tmp_path, [node], {"x": ["n", 3, 8, 8]}, {"k": ones(3, 4, 2, 2)}), {})
    row = next(each for each in learnt() if "transposed" not in each.efficiency)
    target = next(each for each in targets() if row.numerics in each.numerics and unit(each, row.numerics) == row.unit)
    assert "transposed" in rests_on(cost, target, row.numerics, row.threads)[1]
