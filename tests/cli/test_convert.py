"""`mlpack convert`: a new folder with the file and a record of what is not known of it."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
WORDS = ("convert", f"{TINY}/model.py:model", "--data", str(TINY / "eval.npz"))
needs_converter = pytest.mark.skipif(
    importlib.util.find_spec("coremltools") is None, reason="coremltools is not installed: mlpack-toolchain[coreml]"
)


@pytest.mark.slow
@needs_converter
def test_it_writes_a_new_folder_and_claims_nothing(cli, place):
    done = cli(*WORDS, "--to", "coreml", "--set", "convert_coreml.precision=float16", "--json")
    assert done.code == 0, done.err
    assert done.document["not_run_here"].startswith("Core ML runs on Apple's systems alone")
    assert (done.document["path"], done.document["numerics"]) == (str(place / "tiny-mlp-coreml"), "fp16")
    record = json.loads((place / "tiny-mlp-coreml" / "conversion.json").read_text())
    assert record["not_run_here"] == done.document["not_run_here"]
    assert record["source"]["path"] == WORDS[1]
    assert record["options"]["precision"] == "float16"
    assert record["libraries"]["coremltools"][0].isdigit()
    assert not {"accuracy", "latency"} & record.keys()
    files = {path for path in (place / "tiny-mlp-coreml").rglob("*") if path.is_file()}
    assert {path.relative_to(place / "tiny-mlp-coreml").as_posix() for path in files} == {
        *record["files"], "conversion.json",
    }  # fmt: skip
    for name, digest in record["files"].items():
        assert hashlib.sha256((place / "tiny-mlp-coreml" / name).read_bytes()).hexdigest() == digest
    again = cli(*WORDS, "--to", "coreml")
    assert again.code == 2
    assert "tiny-mlp-coreml is there already" in again.err
    told = cli(*WORDS, "--to", "coreml", "--out", "edge")
    assert told.code == 0
    assert "not run here: Core ML runs" in told.err
    assert "takes" in told.err
    assert "float32" in told.err


def test_what_is_wrong_is_said_before_anything_runs(cli, place):
    for words, message in {
        (): "--to is missing",
        ("--to", "corml"): "unknown format 'corml'",
        ("--to", "coreml", "--set", "convert_coreml.precison=float16"): "unknown key 'precison'",
        ("--to", "coreml", "--set", "quantize.samples=1"): "the recipe has no step 'quantize'",
    }.items():
        done = cli(*WORDS, *words)
        assert done.code == 2, words
        assert message in done.err
    assert [path.name for path in place.iterdir() if path.name != "cache"] == []


@pytest.mark.slow
def test_an_onnx_file_is_no_torch_model(cli, place):
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "net.onnx")
    np.savez("rows.npz", x=np.random.default_rng(0).random((40, 4), np.float32))
    done = cli("convert", "net.onnx", "--data", "rows.npz", "--to", "coreml")
    assert done.code == 2
    assert "takes torch and would be given onnx" in done.err
    assert not (place / "net-coreml").exists()
