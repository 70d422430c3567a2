"""OpenVINO answers what numpy computes, in exactly the precision that was asked for."""

import numpy as np
import openvino as ov
import pytest
import small_graphs

from mlpack.backends import BACKENDS
from mlpack.backends.openvino import _compiled
from mlpack.core.backend_options import BackendOptions
from mlpack.core.targets import load_target
from mlpack.errors import MissingHardware, StageFailed

HERE = load_target("cpu")
BACKEND = BACKENDS["openvino"]
PLAIN = BackendOptions(threads=1)
BRAIN = BackendOptions(threads=1, precision="bfloat16")
has_bf16 = pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this CPU has no bf16"
)


def test_it_answers_what_numpy_computes(tmp_path):
    model = small_graphs.mlp(tmp_path)
    with BACKEND.open(model, HERE, PLAIN) as runner:
        for count in (1, 3, 7):
            x = small_graphs.random(count, 8, seed=count)
            np.testing.assert_allclose(runner({"x": x})["y"], small_graphs.mlp_by_numpy(model, x), rtol=1e-4, atol=1e-5)


def test_answers_do_not_change_when_the_next_come(tmp_path):
    with BACKEND.open(small_graphs.mlp(tmp_path), HERE, PLAIN) as runner:
        first = runner({"x": small_graphs.random(2, 8)})["y"]
        kept = first.copy()
        runner({"x": small_graphs.random(2, 8, seed=5)})
        np.testing.assert_array_equal(first, kept)


def test_fp32_is_executed_in_fp32_also_where_the_cpu_prefers_bf16(tmp_path):
    model = small_graphs.mlp(tmp_path, width=512)
    assert _compiled(model, PLAIN, profiling=False).get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
    x = small_graphs.random(8, 8)
    expected = small_graphs.mlp_by_numpy(model, x)
    with BACKEND.open(model, HERE, PLAIN) as runner:
        assert np.linalg.norm(runner({"x": x})["y"] - expected) / np.linalg.norm(expected) < 1e-5


@has_bf16
def test_bf16_is_executed_in_bf16(tmp_path):
    model = small_graphs.mlp(tmp_path, width=512)
    assert _compiled(model, BRAIN, profiling=False).get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16
    x = small_graphs.random(8, 8)
    expected = small_graphs.mlp_by_numpy(model, x)
    with BACKEND.open(model, HERE, BRAIN) as runner:
        away = np.linalg.norm(runner({"x": x})["y"] - expected) / np.linalg.norm(expected)
    assert 1e-4 < away < 2e-2, "rounded as bf16 rounds: neither exact nor wrong"


def test_threads_and_streams_are_those_that_were_asked_for(tmp_path):
    compiled = _compiled(small_graphs.mlp(tmp_path), PLAIN, profiling=False)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize(
    "asked", [BackendOptions(threads=1, device="cuda"), BackendOptions(threads=1, graph_optimizations="off")]
)
def test_what_it_cannot_do_is_refused_and_never_replaced(tmp_path, asked):
    model = small_graphs.mlp(tmp_path)
    reason = BACKEND.refusal(model, HERE, asked)
    assert reason
    with pytest.raises(MissingHardware, match="openvino cannot run this") as caught, BACKEND.open(model, HERE, asked):
        pass
    assert reason in caught.value.message


def test_a_file_that_is_no_model_is_a_failed_stage(tmp_path):
    model = small_graphs.mlp(tmp_path)
    model.entry_path.write_bytes(b"not a graph")
    with pytest.raises(StageFailed, match="openvino refuses this model"), BACKEND.open(model, HERE, PLAIN):
        pass


@pytest.mark.parametrize("x", [small_graphs.random(2, 9), small_graphs.random(2, 8).astype(np.float64)])
def test_inputs_that_do_not_fit_are_a_failed_stage(tmp_path, x):
    with BACKEND.open(small_graphs.mlp(tmp_path), HERE, PLAIN) as runner, pytest.raises(StageFailed):
        runner({"x": x})


def test_operators_take_time(tmp_path):
    spent = BACKEND.operators(small_graphs.mlp(tmp_path, 256), HERE, PLAIN, {"x": small_graphs.random(64, 8)})
    assert "FullyConnected" in {each.operator for each in spent}
    assert all(each.ms > 0 for each in spent)
