"""The TorchServe package: its archive, and the real server: golden answers, batches, refusals, what was altered."""

from __future__ import annotations

import base64
import http.client
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
import torch
from onnx import TensorProto, helper, numpy_helper
from other_servers import environment
from raw_artifacts import make_raw, picture
from serving import replace, run_client
from tiny_artifacts import graph, make, samples

import mlpack
from mlpack.core.model import TensorSpec
from mlpack.core.runtime import PackageOptions, ServeOptions
from mlpack.errors import StageFailed, Tampered, UsageError
from mlpack.runtimes import RUNTIMES, torchserve_server
from mlpack.runtimes.templates.torchserve import graceful, working
from mlpack.store.verify import verify

IN_FLIGHT = 5
A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8", "accuracy__simulated": True,
        "model__backend_options": {"threads": 2, "graph_optimizations": "off"}, "latency": []}  # fmt: skip


def row(of=0):
    values = samples("mlp")["features"][of : of + 1]
    return {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": values.ravel().tolist()}


def asked(url, body, kind="application/json", model="tiny-mlp"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", raw, {"Content-Type": kind})
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
    framework, session = (metadata.version(name).partition("+")[0] for name in ("torch", "onnxruntime"))
    packages = (
        f"torch=={framework}", f"onnxruntime=={session}", "torchserve==0.12.0", "psutil", "pyyaml", "setuptools",
    )  # fmt: skip
    return environment(kept / "torchserve", *packages, "numpy", "packaging") / "python"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.slow
def test_check_proves_it_and_leaves_nothing_running(folder, python, monkeypatch):
    monkeypatch.setattr("mlpack.api.check._SECONDS", 3)  # its load is counted
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


def test_who_is_at_work_holds_a_lock(tmp_path, monkeypatch):
    monkeypatch.setenv(working.BUSY, str(tmp_path))
    one, _ = working.Working(), working.Working()
    assert not graceful._is_worked(tmp_path)
    with one:
        assert graceful._is_worked(tmp_path)
    assert not graceful._is_worked(tmp_path)
    monkeypatch.delenv(working.BUSY)
    with working.Working():
        assert not graceful._is_worked(tmp_path)


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
        key = keys["inference"]["key"]
        monkeypatch.setenv("AUTH_TOKEN", key)
        assert run_client(folder, url).returncode == 0
        # Each worker has the lock that tells when it is at work.
        workers = [each for each in psutil.Process(running.process.pid).children(recursive=True)
                   if any("model_service_worker" in word for word in each.cmdline())]  # fmt: skip
        (busy,) = {each.environ()[working.BUSY] for each in workers}
        assert {path.name for path in Path(busy).iterdir()} == {str(each.pid) for each in workers}
        # Fewer than a batch: they wait for others, and the signal finds them waiting.
        host, _, port = url.removeprefix("http://").partition(":")
        sent = [http.client.HTTPConnection(host, int(port), timeout=60) for _ in range(IN_FLIGHT)]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        for of, each in enumerate(sent):
            each.request("POST", "/v2/models/tiny-mlp/infer", json.dumps({"inputs": [row(of)]}), headers)
        running.process.terminate()
        assert [each.getresponse().status for each in sent] == [200] * IN_FLIGHT, "what was accepted is answered"
        for each in sent:
            each.close()
        assert running.process.wait(60) == 0
    assert "every request is answered" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_answers_may_be_larger_than_requests(place, python):
    weights = numpy_helper.from_array(np.ones((8, 1000), np.float32), "w")
    wide = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["wide"])], "wide",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 1000])], [weights],
    )  # fmt: skip
    model = helper.make_model(wide, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
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
    logs = mlpack.api.check.cache_folder() / "logs" / "servers"
    ask = torchserve_server._is_ready

    def refused(port, model):
        assert not ask(port, model), "it is served"
        if any("was altered" in path.read_text() for path in logs.glob("*torchserve*")):
            raise StageFailed("the worker says what it found", "")
        return False

    monkeypatch.setattr(torchserve_server, "_is_ready", refused)
    with pytest.raises(StageFailed, match="what it found"):
        mlpack.check(folder, python=python)


def script(place):
    """The model of tiny-mlp as a TorchScript archive, beside the graph that its golden answers are made by."""
    weights = {each.name: numpy_helper.to_array(each) for each in graph("mlp")[0].graph.initializer}
    w1, b1, w2, b2 = (torch.tensor(weights[name]) for name in ("w1", "b1", "w2", "b2"))

    class Network(torch.nn.Module):
        def forward(self, features):
            logits = torch.relu(features @ w1 + b1) @ w2 + b2
            return logits, logits.max(1).values

    traced = torch.jit.trace(Network().eval(), torch.zeros(2, 8))
    torch.jit.freeze(traced.eval()).save(str(place / "model" / "model.pt"))


TORCHSCRIPT = {"model__format": "torchscript", "model__backend": "torchscript", "accuracy__backend": "torchscript",
               "model__entry": "model.pt", "beside": script}  # fmt: skip


def test_a_torchscript_archive_is_for_this_server_only(tmp_path):
    stored = make(tmp_path, **TORCHSCRIPT)
    layout = RUNTIMES["torchserve"].layout(stored, PackageOptions())
    archive = layout["model_store/tiny-mlp.mar"].files
    assert json.loads(archive["model.json"])["entry"] == "model/model.pt"
    assert "torch==" in layout["requirements.txt"]
    assert "onnxruntime" not in layout["requirements.txt"]
    with pytest.raises(UsageError, match="ONNX models only") as caught:
        RUNTIMES["fastapi"].layout(stored, PackageOptions())
    assert caught.value.hint.startswith("mlpack package tiny-mlp@1 --runtime torchserve")


@pytest.mark.slow
def test_a_torchscript_archive_answers_as_was_recorded(place, python, monkeypatch):
    monkeypatch.setattr("mlpack.api.check._SECONDS", 0.3)
    monkeypatch.setattr("mlpack.api.check._WARM_UP_S", 0.1)
    make(place / "artifacts", **TORCHSCRIPT)
    done = mlpack.check(mlpack.package("tiny-mlp", runtime="torchserve").path, python=python)
    assert done.problems == ()
    assert {each.name for each in done.replays[0].outputs} == {"logits", "score"}


@pytest.mark.slow
def test_raw_samples_go_through_the_artifact_s_own_pipeline(place, python, tmp_path):
    make_raw(place / "artifacts", "photos")
    folder = mlpack.package("tiny-photos", runtime="torchserve").path
    with RUNTIMES["torchserve"].serve(folder, ServeOptions(python=python), tmp_path / "log") as running:
        url = running.urls["http"]
        done = run_client(folder, url)
        said = "6 golden requests, 0 differences\n6 raw requests, 0 differences\n"
        assert (done.returncode, done.stdout) == (0, said), done.stdout
        files = [base64.b64encode(picture(turn)).decode() for turn in range(2)]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [2]}
        for data, status in ((files, 200), ([files[0], "bm8gaW1hZ2U="], 422), (files[:1], 400)):
            found, answer = asked(url, {"inputs": [{**tensor, "data": data}]}, model="tiny-photos")
            assert found == status, answer
            if status == 422:
                assert answer["error"].startswith("sample 2: ")
