"""Calibration streams through the graph: the ranges of onnxruntime's calibrators, in memory that does not grow."""

import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
import small_graphs
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

from mlpack.quantization.calibrate import calibrate
from mlpack.quantization.observers import observer

# A share of no whole number of values: the rank that it names is the same in any arithmetic.
CUT = 99.87
METHODS = ["minmax", "moving_average", "percentile", "entropy", "mse"]


def proto(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in dict(weights).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def ranges(graph, tensors, batches, method="minmax", *, symmetric=False, cut=True):
    found = calibrate(graph, tensors, batches, observer(method, symmetric=symmetric, cut=CUT), threads=1, cut=cut)
    return {each.tensor: each for each in found}


def ends(found):
    return {name: (each.low, each.high) for name, each in found.items()}


def rows(count, width=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


class Reader:
    """The same batches for onnxruntime."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


@pytest.mark.parametrize(
    ("method", "theirs", "options"),
    [
        ("minmax", CalibrationMethod.MinMax, {}),
        ("percentile", CalibrationMethod.Percentile, {"percentile": CUT, "symmetric": False}),
        ("percentile", CalibrationMethod.Percentile, {"percentile": CUT, "symmetric": True}),
        ("entropy", CalibrationMethod.Entropy, {"num_bins": 2048}),
    ],
    ids=["minmax", "percentile", "symmetric percentile", "entropy"],
)
def test_ranges_are_those_of_onnxruntime_within_a_bin(tmp_path, capsys, method, theirs, options):
    model = small_graphs.mlp(tmp_path, width=64)
    batches = [{"x": rows(500, seed=seed)} for seed in range(8)]
    calibrator = create_calibrator(model.entry_path, None, str(tmp_path / "theirs.onnx"), theirs, extra_options=options)
    calibrator.collect_data(Reader(batches))
    expected = {name: each.range_value for name, each in calibrator.compute_data().data.items()}
    graph = onnx.load(model.entry_path)
    symmetric = options.get("symmetric", False)
    got = ends(ranges(graph, sorted(expected), batches, method, symmetric=symmetric))
    whole = ends(ranges(graph, sorted(expected), batches))
    assert set(got) >= {"x", "h", "r", "y"}
    for name, (low, high) in expected.items():
        width = 2 * max(map(abs, whole[name])) / 2048
        assert got[name] == pytest.approx((float(np.squeeze(low)), float(np.squeeze(high))), abs=1.01 * width), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cut", [True, False])
def test_cutting_batches_into_parts_changes_nothing(tmp_path, monkeypatch, method, cut):
    graph = onnx.load(small_graphs.mlp(tmp_path).entry_path)
    batches = [{"x": rows(size, seed=size)} for size in (7, 64, 1, 33)]
    usual = ranges(graph, ["x", "h", "r", "y"], batches, method)
    monkeypatch.setattr("mlpack.quantization.stream._HELD_BYTES", 500)
    # Kernels sum in another order for other row counts.
    for name, expected in ends(ranges(graph, ["x", "h", "r", "y"], batches, method, cut=cut)).items():
        assert (usual[name].low, usual[name].high) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_find_the_same_bits(tmp_path, method):
    graph = onnx.load(small_graphs.mlp(tmp_path).entry_path)
    batches = [{"x": rows(32, seed=seed)} for seed in range(4)]
    assert ranges(graph, ["h", "y"], batches, method) == ranges(graph, ["h", "y"], batches, method)


def test_a_moving_average_is_that_of_its_batches(tmp_path):
    graph = onnx.load(small_graphs.mlp(tmp_path).entry_path)
    batches = [{"x": rows(16, seed=seed)} for seed in range(20)]
    low, high = (float(getattr(batches[0]["x"], end)()) for end in ("min", "max"))
    for batch in batches[1:]:
        low += 0.01 * (float(batch["x"].min()) - low)
        high += 0.01 * (float(batch["x"].max()) - high)
    assert ends(ranges(graph, ["x"], batches, "moving_average"))["x"] == pytest.approx((low, high))


FLOATS = (TensorProto.FLOAT, ["batch", 4])


@pytest.mark.parametrize("method", METHODS)
class TestOddTensors:
    """What occurs in real graphs and is no bell curve."""

    def test_constants_and_zeros(self, method):
        nodes = [
            helper.make_node("Mul", ["x", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "five"], ["fives"]),
        ]
        weights = {"nothing": np.zeros(1, np.float32), "five": np.float32([5])}
        graph = proto(nodes, {"x": FLOATS}, {"fives": FLOATS}, weights)
        got = ends(ranges(graph, ["zeros", "fives"], [{"x": rows(8, 4)}], method))
        assert got == {"zeros": (0, 0), "fives": (5, 5)}

    def test_infinities_are_left_out_and_counted(self, method):
        nodes = [helper.make_node("Add", ["x", "mask"], ["masked"])]
        graph = proto(nodes, {"x": FLOATS, "mask": FLOATS}, {"masked": FLOATS})
        mask = np.zeros((8, 4), np.float32)
        mask[:, 0], mask[0, 1], mask[1, 1] = np.finfo(np.float32).min, -np.inf, np.nan
        found = ranges(graph, ["x", "mask", "masked"], [{"x": rows(8, 4), "mask": mask}], method)
        assert {name: each.infinite for name, each in found.items()} == {"x": 0, "mask": 10, "masked": 10}
        assert -10 < found["masked"].low < found["masked"].high < 10

    def test_a_tensor_of_several_readers_and_an_output_that_is_an_input(self, method):
        nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Neg", ["r"], ["n"]),
                 helper.make_node("Add", ["r", "n"], ["y"])]  # fmt: skip
        graph = proto(nodes, {"x": FLOATS}, {"x": FLOATS, "y": FLOATS})
        got = ends(ranges(graph, ["x", "r", "n"], [{"x": rows(40_000, 4)}], method))
        assert got["x"][0] < -2 < 2 < got["x"][1]
        # What entropy leaves of one-sided values is its own affair.
        slack = 3 if method == "entropy" else 0.5
        assert got["r"] == pytest.approx((0, got["x"][1]), abs=slack)
        assert got["n"] == pytest.approx((-got["x"][1], 0), abs=slack)

    def test_integer_inputs_and_a_branch_that_never_runs(self, method):
        then = helper.make_graph(
            [helper.make_node("Exp", ["f"], ["e"])], "then", [], [helper.make_tensor_value_info("e", *FLOATS)]
        )
        other = helper.make_graph(
            [helper.make_node("Neg", ["f"], ["m"])], "else", [], [helper.make_tensor_value_info("m", *FLOATS)]
        )
        nodes = [
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("If", ["never"], ["y"], then_branch=then, else_branch=other),
        ]
        graph = proto(
            nodes, {"i": (TensorProto.INT64, ["batch", 4])}, {"y": FLOATS}, {"never": np.array(False)}
        )  # fmt: skip
        feed = np.arange(80_000).reshape(-1, 4) % 8
        got = ends(ranges(graph, ["f", "y"], [{"i": feed}], method))
        slack = 6 if method == "entropy" else 0.1
        assert got["f"] == pytest.approx((0, 7), abs=slack)
        assert got["y"] == pytest.approx((-7, 0), abs=slack)

    def test_empty_batches_and_no_batch_at_all(self, method):
        graph = proto([helper.make_node("Relu", ["x"], ["y"])], {"x": FLOATS}, {"y": FLOATS})
        empty = {"x": rows(0, 4)}
        assert ends(ranges(graph, ["x", "y"], [empty, empty], method)) == {"x": (0, 0), "y": (0, 0)}
        one = ranges(graph, ["x"], [empty, {"x": rows(8, 4)}, empty], method)
        assert one == ranges(graph, ["x"], [{"x": rows(8, 4)}], method)


MEMORY = """
    import sys
    import numpy as np, onnx
    from onnx import helper, TensorProto, numpy_helper
    from mlpack.measure.machine import peak_rss_bytes
    from mlpack.quantization.calibrate import calibrate
    from mlpack.quantization.observers import observer
    method, batches, lengths = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "lengths"
    weight = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 64])
    made = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", "length", 1024])
    graph = helper.make_graph(nodes, "g", [given], [made], [numpy_helper.from_array(weight, "w")])
    graph = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    draw = np.random.default_rng(1)
    def feeds():
        for at in range(batches):
            length = 64 if not lengths or at == 0 else int(draw.integers(1, 65))
            yield {"x": draw.standard_normal((16, length, 64)).astype(np.float32)}
    calibrate(graph, ["x", "y", "z"], feeds(), observer(method, symmetric=False, cut=99.9), threads=1, cut=True)
    print(peak_rss_bytes())
"""


@pytest.mark.parametrize("lengths", ["one length", "lengths"])
@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_memory_does_not_grow_with_the_samples(method, lengths):
    def peak(batches):
        words = [sys.executable, "-c", textwrap.dedent(MEMORY), method, str(batches), lengths]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert peak(64) <= 1.1 * peak(1)
