"""Floors and predictions through the command line: told as what they are, for the rows that are timed."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mlpack.core.efficiency import learnt

WIDTH, TOKENS = 8, 7
FP32 = next(each for each in learnt() if each.numerics == "fp32")


@pytest.fixture
def words(place):
    """A linear layer over tokens, data for it, and as many threads as something was learnt with."""
    weights = onnx.numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("ReduceMean", ["p", "axis"], ["y"], keepdims=0),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "tokens", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [weights, onnx.numpy_helper.from_array(np.array([1]), "axis")],
    )
    path = place / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    drawn = np.random.default_rng(0).normal(size=(400, TOKENS, WIDTH)).astype(np.float32)
    np.savez(place / "eval.npz", x=drawn, labels=drawn.mean(1).argmax(1))
    return str(path), "--data", str(place / "eval.npz"), "--threads", str(FP32.threads)


@pytest.fixture
def absent(place):
    """A target that computes float32 with what something was learnt of, and that no machine is."""
    path = place / "server.yaml"
    path.write_text(
        f"title: a server\nkind: cpu\nisa: [{FP32.unit}]\ncores: 64\nnumerics: [fp32, fp16]\nrules: x86-vnni-u8s8\n"
    )
    return "--target", str(path)


@pytest.mark.slow
def test_plan_and_artifact_say_what_an_absent_cpu_is_predicted_to_take(cli, words, absent):
    published = cli("optimize", *words, *absent, "--backend", FP32.backend, "--json")
    assert published.code == 0, published.err
    document = cli("plan", *words, *absent, "--backend", FP32.backend, "--json").document
    told = document["prediction"]
    assert told["threads"] == FP32.threads
    assert set(told["predicted_ms"]["8"]) == {"fp32"}
    assert told["none_for"] == {"fp16": "not learnt"}
    assert told["rests_on"]["fp32"]["median_error"] == FP32.median_error
    assert document["floor"]["sizes"] == {"tokens": TOKENS}
    assert document["floor"]["operations"] == 2 * TOKENS * WIDTH * WIDTH
    for batch, ms in told["predicted_ms"].items():
        assert ms["fp32"] >= document["floor"]["floor_ms"][batch]["fp32"] > 0
    shown = cli("plan", *words, *absent, "--backend", FP32.backend).err
    assert "predicted at batch 8, in ms (not measured): fp32" in shown
    assert f"wrong by {FP32.median_error:.0%} in the median of models left out" in " ".join(shown.split())
    assert "no prediction for fp16: not learnt" in shown
    kept = published.document["prediction"]
    assert [each["batch"] for each in kept["batches"]] == [1, 8]
    assert kept["reason"] is None
    assert kept["batches"][1]["ms"] == pytest.approx(told["predicted_ms"]["8"]["fp32"])
    assert "predicted, not measured:" in cli("show").err
    assert kept["rests_on"]["backend"] == FP32.backend
    for backend in {each.backend for each in learnt()}:
        other = cli("optimize", *words, *absent, "--backend", backend, "--name", backend, "--json").document
        assert other["prediction"]["rests_on"]["backend"] == backend
        assert all(each["ms"] >= each["floor_ms"] > 0 for each in other["prediction"]["batches"])


def test_a_gpu_gets_a_floor_and_no_prediction_learnt_on_a_cpu(cli, words):
    cli("optimize", *words, "--target", "a100", "--fp16", "--json")
    told = cli("plan", *words, "--target", "a100", "--json").document
    assert told["prediction"]["predicted_ms"] == {}
    assert all("GPU" in reason for reason in told["prediction"]["none_for"].values())
    assert told["floor"]["floor_ms"]["1"]["fp32"] > 0
    assert "no prediction for fp32, tf32, fp16, bf16, int8, int4: learnt on CPUs" in " ".join(
        cli("plan", *words, "--target", "a100").err.split()
    )


def test_this_machine_is_measured_and_not_predicted(cli, words):
    cli("optimize", *words, "--no-limit", "--json")
    assert cli("plan", *words, "--json").document["prediction"] is None


def test_bench_shows_the_floor_of_the_shape_that_it_times(cli, words):
    timing = ("--launches", "2", "--seconds", "0.03", "--threads", "1")

    def floors(tokens):
        done = cli("bench", words[0], "--shape", f"x=3,{tokens},{WIDTH}", *timing, "--json")
        (contender,) = json.loads(done.out)["contenders"]
        (row,) = contender["latency"]
        assert 0 < row["floor_ms"] <= row["p50"]
        return row["floor_ms"]

    assert floors(22) == pytest.approx(2 * floors(11))
    shown = cli("bench", words[0], *words[1:3], *timing).err
    assert "floor: no run of this graph is faster on this CPU" in shown
