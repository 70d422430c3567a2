"""ONNX Runtime answers what numpy computes, on exactly the device that was asked for."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import small_graphs
from onnx import helper

from mlpack.backends import BACKENDS, runs
from mlpack.core.backend_options import BackendOptions
from mlpack.core.targets import load_target
from mlpack.errors import MissingHardware, StageFailed

HERE = load_target("cpu")
BACKEND = BACKENDS["onnxruntime"]
PLAIN = BackendOptions(threads=1)
without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this build has CUDA"
)


def test_it_answers_what_numpy_computes(tmp_path):
    model = small_graphs.mlp(tmp_path)
    with BACKEND.open(model, HERE, PLAIN) as runner:
        for count in (1, 3, 7):
            x = small_graphs.random(count, 8, seed=count)
            np.testing.assert_allclose(runner({"x": x})["y"], small_graphs.mlp_by_numpy(model, x), rtol=1e-4, atol=1e-5)


def test_the_three_steps_are_one_call(tmp_path):
    x = small_graphs.random(4, 8)
    with BACKEND.open(small_graphs.mlp(tmp_path), HERE, PLAIN) as runner:
        whole = runner({"x": x})
        runner.copy_in({"x": x})
        runner.compute()
        np.testing.assert_array_equal(runner.copy_out()["y"], whole["y"])


def test_answers_do_not_change_when_the_next_come(tmp_path):
    with BACKEND.open(small_graphs.mlp(tmp_path), HERE, PLAIN) as runner:
        first = runner({"x": small_graphs.random(2, 8)})["y"]
        kept = first.copy()
        runner({"x": small_graphs.random(2, 8, seed=5)})
        np.testing.assert_array_equal(first, kept)


def test_inputs_that_are_not_contiguous(tmp_path):
    model = small_graphs.mlp(tmp_path)
    x = small_graphs.random(8, 5).T
    with BACKEND.open(model, HERE, PLAIN) as runner:
        np.testing.assert_allclose(runner({"x": x})["y"], small_graphs.mlp_by_numpy(model, x), rtol=1e-4, atol=1e-5)


@without_cuda
def test_a_missing_device_is_never_replaced(tmp_path):
    model = small_graphs.mlp(tmp_path)
    asked = BackendOptions(threads=1, device="cuda")
    assert "CUDAExecutionProvider" in BACKEND.refusal(model, HERE, asked)
    with pytest.raises(MissingHardware) as caught, BACKEND.open(model, HERE, asked):
        pass
    assert caught.value.exit_code == 3


def test_bfloat16_is_refused_on_the_cpu(tmp_path):
    model = small_graphs.mlp(tmp_path)
    assert "bfloat16" in BACKEND.refusal(model.model_copy(update={"numerics": "bf16"}), HERE, PLAIN)
    assert "bfloat16" in BACKEND.refusal(model, HERE, BackendOptions(threads=1, precision="bfloat16"))
    assert BACKEND.refusal(model, HERE, PLAIN) is None


def test_a_precision_that_it_cannot_execute_is_refused_by_open_too(tmp_path):
    asked = BackendOptions(threads=1, precision="bfloat16")
    with pytest.raises(StageFailed), BACKEND.open(small_graphs.mlp(tmp_path), HERE, asked):
        pass


def test_a_file_that_is_no_model_is_a_failed_stage(tmp_path):
    model = small_graphs.mlp(tmp_path)
    model.entry_path.write_bytes(b"not a graph")
    with pytest.raises(StageFailed, match="onnxruntime refuses this model") as caught, BACKEND.open(model, HERE, PLAIN):
        pass
    assert "\n" not in caught.value.message


def test_an_operator_that_it_lacks_is_a_failed_stage(tmp_path):
    model = small_graphs.mlp(tmp_path)
    proto = onnx.load(model.entry_path)
    proto.graph.node.append(helper.make_node("NoSuchOperator", ["y"], ["z"]))
    onnx.save(proto, model.entry_path)
    with pytest.raises(StageFailed, match="NoSuchOperator"), BACKEND.open(model, HERE, PLAIN):
        pass


@pytest.mark.parametrize("x", [small_graphs.random(2, 9), small_graphs.random(2, 8).astype(np.float64)])
def test_inputs_that_do_not_fit_are_a_failed_stage(tmp_path, x):
    with BACKEND.open(small_graphs.mlp(tmp_path), HERE, PLAIN) as runner, pytest.raises(StageFailed):
        runner({"x": x})


def test_operators_are_those_of_the_graph_that_runs(tmp_path):
    x = small_graphs.random(2, 8)
    literal = BackendOptions(threads=1, graph_optimizations="off")
    spent = BACKEND.operators(small_graphs.mlp(tmp_path), HERE, literal, {"x": x})
    assert {each.operator for each in spent} == {"Gemm", "Relu"}
    assert all(each.ms > 0 for each in spent)


def test_graph_optimizations_off_fuses_nothing(tmp_path):
    x = small_graphs.random(2, 8)
    fused = BACKEND.operators(small_graphs.mlp(tmp_path), HERE, PLAIN, {"x": x})
    assert "Relu" not in {each.operator for each in fused}, "all optimizations fuse the Relu into the Gemm"


def test_the_table_knows_who_runs_onnx():
    assert runs("onnx") == ("onnxruntime", "openvino")
    assert all("onnx" in BACKENDS[name].formats for name in runs("onnx"))
    assert runs("torch") == ("torch", "torch_compile", "torch_cuda_graph", "torch_tensorrt")


def test_convolutions_in_blocked_layout_keep_their_modules(tmp_path):
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["c"], name="stem/conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="stem.act/relu"),
        node("Conv", ["r", "w2"], ["y"], name="body.conv/conv", pads=[1, 1, 1, 1]),
    ]
    weights = {"w1": small_graphs.random(32, 3, 3, 3), "w2": small_graphs.random(32, 32, 3, 3, seed=1)}
    dims = [{"x": ["batch", 3, 16, 16]}, {"y": ["batch", 32, 16, 16]}]
    model = small_graphs.save(tmp_path, nodes, *dims, weights)
    spent = BACKEND.operators(model, HERE, PLAIN, {"x": small_graphs.random(1, 3, 16, 16)})
    assert {each.module for each in spent if each.operator == "Conv"} <= {"stem", "stem.act", "body.conv"}


def test_threads_without_work_are_told_to_sleep(tmp_path):
    key, x = "session.intra_op.allow_spinning", small_graphs.random(2, 8)
    model = small_graphs.mlp(tmp_path)
    with BACKEND.open(model, HERE, BackendOptions(threads=2, waiting="sleep")) as asleep:
        assert asleep._session.get_session_options().get_session_config_entry(key) == "0"
        got = asleep({"x": x})["y"]
    with BACKEND.open(model, HERE, BackendOptions(threads=2)) as usual:
        with pytest.raises(RuntimeError, match="allow_spinning"):
            usual._session.get_session_options().get_session_config_entry(key)
        np.testing.assert_array_equal(usual({"x": x})["y"], got)
