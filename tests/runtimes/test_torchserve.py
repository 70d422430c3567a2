"""The TorchServe package: its archive, and the real server: golden answers, batches, refusals, what was altered."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from other_servers import environment
from serving import replace, run_client
from tiny_artifacts import make, samples

import mlpack
from mlpack.core.model import TensorSpec
from mlpack.core.runtime import PackageOptions, ServeOptions
from mlpack.errors import StageFailed, Tampered, UsageError
from mlpack.runtimes import RUNTIMES, torchserve_server
from mlpack.store.verify import verify

A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8", "accuracy__simulated": True,
        "model__backend_options": {"threads": 2, "graph_optimizations": "off"}, "latency": []}  # fmt: skip


def row(of=0):
    values = samples("mlp")["features"][of : of + 1]
    return {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": values.ravel().tolist()}


def asked(url, body, kind="application/json"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v2/models/tiny-mlp/infer", raw, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def folder(place):
    make(place / "artifacts")
    return mlpack.package("tiny-mlp", runtime="torchserve", out=place / "package", queue_delay_ms=200).path


def test_the_archive_holds_what_serves(folder, place):
    with zipfile.ZipFile(folder / "model_store" / "tiny-mlp.mar") as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
        assert (manifest["modelName"], manifest["modelVersion"]) == ("tiny-mlp", "1")
        assert {manifest["handler"], manifest["configFile"], "model/model.onnx.data"} <= set(archive.namelist())
        assert "batchSize: 8" in archive.read("model-config.yaml").decode()
    config = (folder / "config.properties").read_text()
    assert "disable_token_authorization=false" in config
    assert "load_models=tiny-mlp.mar" in config
    again = mlpack.package("tiny-mlp", runtime="torchserve", out=place / "again", queue_delay_ms=200)
    assert again.files == json.loads((folder / "mlpack-package.json").read_text())["files"]
    assert "archived" in (folder / "README.md").read_text()
    verify(folder)


def test_an_altered_artifact_makes_no_archive(place):
    stored = make(place / "artifacts")
    (stored.path / "model" / "model.onnx.data").write_bytes(b"other")
    with pytest.raises(Tampered):
        mlpack.package("tiny-mlp", runtime="torchserve")
    assert not (place / "tiny-mlp-1-torchserve").exists()


def test_what_it_cannot_do_is_refused(tmp_path):
    stored = make(tmp_path / "cpu")
    for options in ({"access": "token"}, {"cache": "memory"}, {"rate_limit": 1.0}, {"engine_fallback": "onnxruntime"}):
        with pytest.raises(UsageError):
            RUNTIMES["torchserve"].layout(stored, PackageOptions(**options))
    with pytest.raises(UsageError) as caught:
        RUNTIMES["torchserve"].layout(make(tmp_path / "gpu", **A100), PackageOptions())
    assert "--runtime triton" in caught.value.hint


def test_without_a_server_the_hint_makes_one(folder, cli, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    done = cli("check", str(folder))
    assert done.code == 3
    assert f"pip install -r {folder / 'requirements.txt'}" in done.err


@pytest.fixture(scope="module")
def python(kept):
    """A Python with TorchServe; its torch is the one that is tested with."""
    torch, session = (metadata.version(name).partition("+")[0] for name in ("torch", "onnxruntime"))
    packages = (f"torch=={torch}", f"onnxruntime=={session}", "torchserve==0.12.0", "psutil", "pyyaml", "setuptools")
    return environment(kept / "torchserve", *packages, "numpy", "packaging") / "python"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.slow
def test_check_proves_it_and_leaves_nothing_running(folder, python, monkeypatch):
    monkeypatch.setattr("mlpack.api.check._SECONDS", 0.3)
    monkeypatch.setattr("mlpack.api.check._WARM_UP_S", 0.1)
    done = mlpack.check(folder, python=python)
    assert done.problems == ()
    assert [(each.door, each.form) for each in done.replays] == [("http 6×1", "json"), ("http 1×6", "json")]
    assert done.load.good > 0
    assert any("security patches" in note for note in done.notes)
    verify(folder)


@pytest.mark.slow
def test_requests_share_batches_and_each_is_answered_for_itself(folder, python, tmp_path):
    with np.load(folder / "golden" / "outputs.npz") as outputs:
        alone = outputs["logits"].tolist()
    with RUNTIMES["torchserve"].serve(folder, ServeOptions(python=python), tmp_path / "log") as running:
        url = running.urls["http"]
        with ThreadPoolExecutor(8) as pool:
            bodies = [{"inputs": [row(of)], "id": str(of)} for of in range(6)]
            bodies += [{"inputs": [row(0) | {"shape": [1, 7]}]}, {"inputs": [row(0) | {"name": "other"}]}]
            # What TorchServe makes numbers, lists and texts of shares batches with the others too.
            bodies += [b"1.5", b"[300]", b"[[]]", b"1000000000000", b'"text"']
            answers = list(pool.map(lambda body: asked(url, body), bodies))
        assert [status for status, _ in answers] == [200] * 6 + [400] * 7
        for of, (_, answer) in enumerate(answers[:6]):
            assert answer["id"] == str(of)
            assert answer["model_version"] == "1"
            (logits,) = (each for each in answer["outputs"] if each["name"] == "logits")
            assert logits["data"] == pytest.approx(alone[of], rel=1e-4, abs=1e-5)
        assert "'other'" in answers[7][1]["error"]
        for body, kind in ((b"{bad", "application/json"), (b"", "application/json"), (b"\x00\xff", "text/plain"),
                           (b"hello", "text/plain")):  # fmt: skip
            status, answer = asked(url, body, kind)
            assert (status, "error" in answer) == (400, True), answer
        assert asked(url, {"inputs": [row()]})[0] == 200, "and it lives on"


@pytest.mark.slow
def test_with_its_tokens_on_it_is_ready_and_answers_who_has_one(folder, python, tmp_path, monkeypatch):
    """As the image starts it, but for the addresses."""
    configured = torchserve_server._configured
    tokens = ("disable_token_authorization=true", "disable_token_authorization=false")
    monkeypatch.setattr(torchserve_server, "_configured", lambda *given: configured(*given).replace(*tokens))
    monkeypatch.setattr(torchserve_server, "_is_ready", lambda port, model: is_ready(port, model) == 0)
    place = []

    def is_ready(port, model):
        servers = [each for each in psutil.Process().children(recursive=True) if each.name() == "java"]
        if not servers:
            return 1
        place[:] = [Path(servers[0].cwd())]
        words = [python, folder / "ready.py", model, f"http://127.0.0.1:{port}"]
        return subprocess.run(words, cwd=place[0], capture_output=True, check=False, timeout=60).returncode

    with RUNTIMES["torchserve"].serve(folder, ServeOptions(python=python), tmp_path / "log") as running:
        url = running.urls["http"]
        keys = json.loads((place[0] / "key_file.json").read_text())
        assert int(keys["inference"]["expiration time"][:4]) > datetime.now(UTC).year + 8
        assert run_client(folder, url).returncode == 1, "without a token"
        monkeypatch.setenv("AUTH_TOKEN", keys["inference"]["key"])
        assert run_client(folder, url).returncode == 0


@pytest.mark.slow
def test_answers_may_be_larger_than_requests(place, python):
    weights = numpy_helper.from_array(np.ones((8, 1000), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["wide"])], "wide",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 1000])], [weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    ends = ([TensorSpec(name=name, dtype="float32", dims=("batch", size))] for name, size in
            (("features", 8), ("wide", 1000)))  # fmt: skip
    make(place / "artifacts", built=(model, *ends))
    folder = mlpack.package("tiny-mlp", runtime="torchserve", out=place / "package").path
    assert mlpack.check(folder, python=python).problems == ()


@pytest.mark.slow
def test_an_altered_model_is_not_served(folder, python, tmp_path, monkeypatch):
    archive = folder / "model_store" / "tiny-mlp.mar"
    with zipfile.ZipFile(archive) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    files["model/model.onnx.data"] = files["model/model.onnx.data"][:-1] + b"!"
    with zipfile.ZipFile(tmp_path / "other.mar", "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    content = (tmp_path / "other.mar").read_bytes()
    archive.write_bytes(content)
    with pytest.raises(Tampered):
        mlpack.check(folder, python=python)
    # Who alters the list too meets the server itself.
    replace(folder, "model_store/tiny-mlp.mar", content)
    monkeypatch.setattr("mlpack.runtimes.server_process._READY_SECONDS", 20.0)
    with pytest.raises(StageFailed):
        mlpack.check(folder, python=python)
    (log,) = Path(mlpack.api.check.cache_folder() / "logs" / "servers").glob("*torchserve*")
    assert "was altered" in log.read_text()
