"""The FastAPI package, started for real and asked over HTTP."""

from __future__ import annotations

import ast
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from packaging.utils import canonicalize_name
from serving import LAUNCH, free_port, run_client, started
from tiny_artifacts import SAMPLES

import mlpack.runtimes
from mlpack.core.runtime import PackageOptions
from mlpack.runtimes.templates.fastapi.server.description import read_description
from mlpack.runtimes.templates.fastapi.server.sessions import open_session

INFER = "/v2/models/tiny-mlp/infer"
WIDE = 60_000  # a queue delay in ms that only a full batch ends


def body(values, name="features", datatype="FP32", **more):
    array = np.asarray(values)
    data = array.ravel().tolist()
    return {
        "inputs": [{"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}],
        **more,
    }


def row(data):
    return {"inputs": [{**body(np.zeros((1, 8)))["inputs"][0], "data": data}]}


def golden(folder):
    return np.load(folder / "golden" / "inputs.npz"), np.load(folder / "golden" / "outputs.npz")


@pytest.mark.parametrize("kind", ["mlp", "text"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_answers_equal_the_golden_outputs(packaged, serve, kind, backend):
    folder = packaged(kind, changes={"model__backend": backend, "accuracy__backend": backend})
    done = run_client(folder, serve(folder).url)
    assert (done.returncode, done.stdout) == (0, "6 golden requests, 0 differences\n")


def test_threads_of_the_server_sleep_where_those_that_were_measured_did(packaged, monkeypatch):
    folder = packaged(changes={"model__backend_options": {"threads": 2, "waiting": "sleep"}})
    opened, real = [], ort.InferenceSession

    def remembered(*arguments, **named):
        opened.append(real(*arguments, **named))
        return opened[-1]

    monkeypatch.setattr(ort, "InferenceSession", remembered)
    run = open_session(folder, read_description(folder))
    (session,) = opened
    assert session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"
    inputs, outputs = golden(folder)
    for name, array in run(dict(inputs)).items():
        np.testing.assert_allclose(array, outputs[name], rtol=1e-4, atol=1e-5)


def test_static_batch_takes_exactly_its_rows(packaged, serve):
    folder = packaged(changes={"batch": 3})
    server = serve(folder)
    assert run_client(folder, server.url).stdout == "2 golden requests, 0 differences\n"
    status, answer = server.ask(INFER, body(np.zeros((1, 8))))
    assert (status, answer) == (400, {"error": "input 'features' has shape [1, 8], expected [3, 8]"})


def test_metadata_and_health(packaged, serve):
    server = serve(packaged())
    assert server.ask("/v2/health/live") == (200, {"live": True})
    assert server.ask("/v2/models/tiny-mlp/versions/1/ready") == (200, {"name": "tiny-mlp", "ready": True})
    status, model = server.ask("/v2/models/tiny-mlp")
    assert status == 200
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 8]}]
    assert model["outputs"][1] == {"name": "score", "datatype": "FP32", "shape": [-1]}
    assert server.ask("/v2")[1]["extensions"] == ["binary_tensor_data"]


def test_pasted_request_and_chosen_outputs(packaged, serve):
    folder = packaged()
    server = serve(folder)
    request = json.loads((folder / "golden" / "request.json").read_text())
    status, answer = server.ask(INFER, {**request, "id": "7", "outputs": [{"name": "score"}]})
    _, outputs = golden(folder)
    assert status == 200
    assert (answer["id"], answer["model_version"]) == ("7", "1")
    assert [each["name"] for each in answer["outputs"]] == ["score"]
    assert answer["outputs"][0]["data"] == pytest.approx(outputs["score"][:1].tolist(), abs=1e-5)


BAD = {
    "not json": (b"{", "not valid JSON"),
    "no body": (b"", "not valid JSON"),
    "not an object": ([1], "must be a JSON object"),
    "no inputs": ({}, "'inputs' must be a list"),
    "unknown input": (body(np.zeros((1, 8)), name="pixels"), "'pixels'; the model has 'features'"),
    "twice": ({"inputs": body(np.zeros((1, 8)))["inputs"] * 2}, "given twice"),
    "datatype": (body(np.zeros((1, 8)), datatype="FP64"), "must have datatype FP32"),
    "width": (body(np.zeros((1, 7))), "has shape [1, 7], expected [batch, 8]"),
    "rank": (body(np.zeros(8)), "has shape [8], expected [batch, 8]"),
    "no rows": (body(np.zeros((0, 8))), "whole numbers of at least 1"),
    "too many rows": (body(np.zeros((9, 8))), "the batch has 9 rows; this server takes at most 8"),
    "too few values": (row([1.0]), "has shape [1]"),
    "ragged": (row([[1.0], [2.0, 3.0]]), "ragged"),
    "strings": (row(["a"] * 8), "does not hold FP32"),
    "nan": (json.dumps(body(np.full((1, 8), np.nan))).encode(), "NaN is not a JSON number"),
    "infinity": (json.dumps(body(np.zeros((1, 8)))).replace("0.0", "1e999").encode(), "FP32 cannot hold"),
    "too large for float32": (body(np.full((1, 8), 1e300)), "FP32 cannot hold"),
    "unknown output": (body(np.zeros((1, 8)), outputs=[{"name": "x"}]), "unknown output 'x'"),
}  # fmt: skip


def test_bad_requests_say_what_is_wrong_and_the_server_lives_on(packaged, serve):
    folder = packaged()
    server = serve(folder)
    for what, (sent, said) in BAD.items():
        status, answer = server.ask(INFER, sent)
        assert status == 400, what
        assert said in answer["error"], what
    assert server.metrics()['inference_requests_total{status="400"}'] == len(BAD)
    assert run_client(folder, server.url).returncode == 0


def test_wrong_place_method_and_size(packaged, serve):
    server = serve(packaged(), MAX_BODY_BYTES="1000")
    assert server.ask("/v2/models/other") == (
        404, {"error": "unknown model 'other' version 1; this server has 'tiny-mlp' version 1"},
    )  # fmt: skip
    assert server.ask("/v2/models/tiny-mlp/versions/2/infer", {})[0] == 404
    assert server.ask("/nowhere")[0] == 404
    assert server.ask(INFER)[0] == 405
    assert server.ask(INFER, b" " * 1001) == (413, {"error": "the body is larger than 1000 bytes"})


def test_a_body_without_length_is_cut_off_at_the_limit(packaged, serve):
    import http.client

    server = serve(packaged(), MAX_BODY_BYTES="1000")
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=300)
    connection.request("POST", INFER, body=iter([b" " * 600] * 2), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 413
    connection.close()


def test_the_default_limit_lets_the_largest_request_in(packaged, serve):
    server = serve(packaged())
    widest = -1.2345678e-38
    raw = json.dumps(body(np.full((8, 8), widest))).replace(",", ", ").encode()
    assert server.ask(INFER, raw)[0] == 200


def test_concurrent_requests_share_batches_and_each_gets_its_own_rows(packaged, serve):
    folder = packaged(max_batch=4, queue_delay_ms=WIDE)
    server = serve(folder)
    inputs, outputs = golden(folder)

    def ask(turn):
        row = turn % SAMPLES
        status, answer = server.ask(INFER, body(inputs["features"][row : row + 1]))
        assert status == 200
        return row, answer["outputs"][0]["data"]

    with ThreadPoolExecutor(8) as pool:
        for row, logits in pool.map(ask, range(32)):
            assert logits == pytest.approx(outputs["logits"][row].tolist(), abs=1e-4)
    metrics = server.metrics()
    assert metrics["inference_batch_rows_sum"] == 32
    assert metrics["inference_batch_rows_count"] == 8
    assert metrics['inference_requests_total{status="200"}'] == metrics["inference_request_seconds_count"] == 32


def test_metrics_say_where_the_time_of_a_request_goes(packaged, serve):
    folder = packaged()
    server = serve(folder)
    run_client(folder, server.url)
    metrics = server.metrics()
    parts = [f'{{part="{part}"}}' for part in ("preprocess", "queue", "compute", "postprocess")]
    assert [metrics[f"inference_part_seconds_count{part}"] for part in parts] == [SAMPLES] * 4
    spent = [metrics[f"inference_part_seconds_sum{part}"] for part in parts]
    assert min(spent) > 0
    assert sum(spent) < metrics["inference_request_seconds_sum"]


def test_the_index_lists_the_model(packaged, serve):
    ready = [{"name": "tiny-mlp", "version": "1", "state": "READY"}]
    assert serve(packaged()).ask("/v2/repository/index", {}) == (200, ready)


def test_requests_of_a_batch_dependent_model_never_share_a_batch(packaged, serve):
    folder = packaged(changes={"accuracy__batch_dependent": True, "accuracy__batch": 2}, max_batch=8, queue_delay_ms=50)
    server = serve(folder)
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _ in pool.map(lambda _: server.ask(INFER, body(np.ones((1, 8)))), range(24))} == {
            200
        }
    assert server.metrics()["inference_batch_rows_count"] == 24
    assert server.ask(INFER, body(np.ones((2, 8))))[0] == 200
    status, answer = server.ask(INFER, body(np.ones((3, 8))))
    assert (status, answer["error"]) == (
        400,
        "the batch has 3 rows; this server takes at most 2 in one request",
    )
    assert "one request at a time" in (folder / "README.md").read_text()


def test_a_value_that_the_model_refuses_fails_alone(packaged, serve):
    folder = packaged("text", max_batch=2, queue_delay_ms=WIDE)
    server = serve(folder)

    def ask(token):
        request = {"inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [1, 2], "data": [token, token]},
            {"name": "mask", "datatype": "BOOL", "shape": [1, 2], "data": [True, True]},
        ]}  # fmt: skip
        return server.ask("/v2/models/tiny-text/infer", request)

    with ThreadPoolExecutor(2) as pool:
        (good, _), (bad, answer) = pool.map(ask, (3, 999))
    assert (good, bad) == (200, 500)
    assert "the model failed on this input" in answer["error"]


def test_a_full_queue_answers_429(packaged, serve):
    server = serve(packaged("slow", max_batch=1))
    request = json.dumps(body(np.ones((1, 700)))).encode()
    with ThreadPoolExecutor(150) as pool:
        answers = list(pool.map(lambda _: server.ask("/v2/models/tiny-slow/infer", request), range(150)))
    refused = [answer for status, answer in answers if status == 429]
    assert {status for status, _ in answers} == {200, 429}
    assert refused[0] == {"error": "the queue is full (64 requests wait)"}


def test_sigterm_loses_no_accepted_request(packaged, serve):
    server = serve(packaged("slow", max_batch=1))
    request = json.dumps(body(np.ones((1, 700)))).encode()
    ready = []

    def ask(_):
        return server.ask("/v2/models/tiny-slow/infer", request)[0]

    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, turn) for turn in range(40)]
        # All requests are in: answered, waiting, or (one) running.
        while True:
            metrics = server.metrics()
            answered = metrics.get('inference_requests_total{status="200"}', 0)
            if answered + metrics["inference_queue_depth"] >= 39:
                break
        ready.append(metrics["inference_queue_depth"])
        server.process.send_signal(signal.SIGTERM)
        assert [each.result() for each in asked] == [200] * 40
    assert ready[0] > 5, "nothing was waiting when the signal came: the test shows nothing"
    assert server.process.wait(20) in {0, -signal.SIGTERM}
    with pytest.raises(urllib.error.URLError):
        server.ask("/v2/health/ready")


def start_in_vain(folder, port):
    command = [sys.executable, "-I", "-B", "-c", LAUNCH, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PORT": port}, timeout=300)


@pytest.mark.parametrize(
    "relative",
    ["model/model.onnx", "model/model.onnx.data", "model.json", "golden/inputs.npz", "mlpack-package.json"],
)
def test_an_altered_file_is_not_served(packaged, relative):
    folder = packaged()
    path = folder / relative
    path.write_bytes(path.read_bytes()[:-2] + b"!")
    done = start_in_vain(folder, str(free_port()))
    assert done.returncode == 5
    assert done.stderr.startswith(f"error: {relative} ")
    assert "hint: " in done.stderr


def test_a_setting_that_is_no_number_is_refused(packaged):
    done = start_in_vain(packaged(), "http")
    assert (done.returncode, done.stderr) == (2, "error: PORT=http is not a whole number\n")


def test_the_client_sees_a_difference(packaged, serve, tmp_path):
    folder = packaged()
    server = serve(folder)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    outputs = dict(np.load(folder / "golden" / "outputs.npz"))
    outputs["score"][4] += 0.01
    np.savez(other / "golden" / "outputs.npz", **outputs)
    done = run_client(other, server.url)
    assert done.returncode == 1
    assert done.stdout.startswith("request 5: output 'score' differs: ")
    assert done.stdout.endswith("6 golden requests, 1 differences\n")


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([], "'logits' is missing"),
        ([{"name": "logits", "datatype": "FP32", "shape": [0], "data": []}], "'logits' is empty"),
        (
            [{"name": "logits", "datatype": "FP32", "shape": [3, 1], "data": [1, 2, 3]}],
            "is float32[3, 1], expected",
        ),
        (None, "no usable answer"),
    ],
)
def test_the_client_takes_no_answer_for_none(packaged, outputs, said):
    folder = packaged()

    class Odd(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply({"extensions": []})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply({} if outputs is None else {"outputs": outputs})

        def reply(self, answer):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        done = run_client(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    assert said in done.stdout


def test_the_client_says_that_nobody_answers(packaged):
    done = run_client(packaged(), f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "cannot be reached" in done.stdout


def test_the_server_imports_only_what_its_requirements_name():
    allowed = {"fastapi", "starlette", "uvicorn", "httptools", "numpy", "onnxruntime", "openvino", "prometheus_client"}
    # Loaded only where the package was made with them, and then its requirements name them.
    optional = {"redis_store.py": {"redis"}, "otlp.py": {"opentelemetry"}}
    folder = Path(mlpack.runtimes.__file__).parent / "templates" / "fastapi" / "server"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module] if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )  # fmt: skip
            for name in names:
                top = name.partition(".")[0]
                known = allowed | optional.get(path.name, set()) | sys.stdlib_module_names
                assert top in known, f"{path.name} imports {name}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "reviews", "photos"])
def test_it_runs_in_a_fresh_environment_made_from_its_requirements(packaged, tmp_path, kind):
    folder = packaged(kind, max_batch=PackageOptions().max_batch)
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"], check=True, timeout=300)
    found = subprocess.run([python, "-I", "-c", "import mlpack"], capture_output=True, check=False)
    assert found.returncode != 0
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True)
    installed = {canonicalize_name(each["name"]): each["version"] for each in json.loads(listed.stdout)}
    pinned = dict(line.split("==") for line in (folder / "requirements.txt").read_text().splitlines() if "==" in line)
    # Nothing came that is not pinned: the image is the same tomorrow.
    assert {canonicalize_name(name): version for name, version in pinned.items()} == {
        name: version for name, version in installed.items() if name not in {"pip", "setuptools"}
    }
    bill = json.loads((folder / "sbom.cdx.json").read_text())
    assert {each["name"]: each["version"] for each in bill["components"]} == pinned
    with started([python, "-B", "-m", "server"], folder, {}) as server:
        done = run_client(folder, server.url, python)
        raw = "" if kind == "mlp" else "6 raw requests, 0 differences\n"
        assert (done.returncode, done.stdout) == (0, f"6 golden requests, 0 differences\n{raw}")
        os.killpg(server.process.pid, signal.SIGTERM)
        assert server.process.wait(20) in {0, -signal.SIGTERM}
