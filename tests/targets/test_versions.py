"""Versions that go together: what is written is what the libraries here do, and what does not fit is refused early."""

import importlib.metadata

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mlpack.core.versions import in_image, newest_opset
from mlpack.runtimes import triton


def data(folder):
    drawn = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    np.savez(folder / "eval.npz", x=drawn, labels=drawn.argmax(1))
    return "--data", str(folder / "eval.npz")


def graph(path, opset):
    weights = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    inside = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weights],
    )
    onnx.save(helper.make_model(inside, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def test_the_runtime_here_reads_the_newest_opset_that_is_written_and_none_newer(tmp_path):
    newest = newest_opset("onnxruntime", onnxruntime.__version__)
    onnxruntime.InferenceSession(graph(tmp_path / "newest.onnx", newest))
    with pytest.raises(Exception, match="opset"):
        onnxruntime.InferenceSession(graph(tmp_path / "newer.onnx", newest + 1))


def test_versions_between_and_before_those_that_are_known():
    assert newest_opset("onnxruntime", "1.23.1") == 23
    assert newest_opset("onnxruntime", "1.26.0") == newest_opset("onnxruntime", "1.24.4") == 25
    assert newest_opset("onnxruntime", "1.2.0") is None
    assert newest_opset("tensorrt", "11.4") == 25
    assert newest_opset("another", "1.0") is None


def test_the_server_image_has_the_runtime_that_its_packages_name():
    assert in_image("triton", triton.IMAGE_TAG) == triton._IMAGE_ONNXRUNTIME
    assert in_image("triton", "19.01-py3") is None
    assert importlib.metadata.version("onnxruntime")


@pytest.mark.parametrize(("target", "opset", "reads"), [("cpu", 27, "onnxruntime"), ("a100", 26, "tensorrt 11")])
def test_an_opset_that_the_target_cannot_read_is_refused_before_anything_runs(cli, tmp_path, target, opset, reads):
    path = graph(tmp_path / "new.onnx", opset)
    done = cli("optimize", str(path), "--target", target, "--int8", *data(tmp_path), "--json")
    assert done.code == 2
    assert f"has opset {opset}; {reads}" in done.document["error"]["message"]
    assert "opset" in done.document["error"]["hint"]


def test_plan_tells_the_floor_once_the_graph_is_there_and_refuses_a_batch_beyond_the_memory(cli, tmp_path):
    path = graph(tmp_path / "model.onnx", 20)
    words = (str(path), "--int8", *data(tmp_path))
    # Loading it is what an earlier `optimize` did.
    cli("optimize", *words, "--target", "a100", "--json")
    told = cli("plan", *words, "--target", "a100", "--json").document
    assert told["floor"]["operations"] == 2 * 4 * 4
    assert set(told["floor"]["floor_ms"]["8"]) == {"fp32", "tf32", "fp16", "bf16", "int8"}
    assert "no run is faster" in cli("plan", *words, "--target", "a100").err
    small = tmp_path / "tiny.yaml"
    small.write_text("extends: a100\nmemory_gb: 0.0000002\n")
    refused = cli("plan", *words, "--target", str(small), "--json")
    assert refused.code == 2
    assert "batch 8 does not fit tiny: beside the weights" in refused.document["error"]["message"]
    assert refused.document["error"]["hint"] == "--set profile_latency.batches=1,8"


@pytest.mark.parametrize("source", ["graph", "module"])
def test_optimize_refuses_what_the_target_cannot_hold_before_it_quantizes(cli, tmp_path, source):
    module = tmp_path / "net.py"
    module.write_text("import torch\n\n\ndef net():\n    return torch.nn.Linear(4, 4)\n")
    model = str(graph(tmp_path / "model.onnx", 20)) if source == "graph" else f"{module}:net"
    small = tmp_path / "tiny.yaml"
    small.write_text("extends: a100\nmemory_gb: 0.0000002\n")
    inputs = () if source == "graph" else ("--input", "x=float32:batch,4")
    refused = cli("optimize", model, *inputs, "--int8", *data(tmp_path), "--target", str(small), "--json")
    assert refused.code == 2
    assert "batch 8 does not fit tiny: beside the weights" in refused.document["error"]["message"]
    assert "quantize" not in refused.err
