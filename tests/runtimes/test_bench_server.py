"""`bench --server` against servers that really run: the packaged FastAPI server, MLServer, and gRPC's own server."""

# ruff: noqa: N802, ARG002 - protocols name the methods of their servers and pass what these do not need

from __future__ import annotations

import asyncio
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from serving import LAUNCH, free_port, started
from tiny_artifacts import make
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from mlpack import bench_server, package
from mlpack.errors import DataError, MachineError, StageFailed, UsageError
from mlpack.measure.arrivals import poisson_times
from mlpack.measure.clients import CLIENTS
from mlpack.measure.load_drive import Asking, closed_loop, open_loop, run
from mlpack.measure.server_time import NETWORK, PARTS

# Real clocks on a machine that may stall for seconds: what is claimed has to hold in one of four tries.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5)

SHORT = 0.6


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The packaged FastAPI server, as it is shipped."""
    place = tmp_path_factory.mktemp("served")
    make(place / "store", "mlp")
    folder = package("tiny-mlp", runtime="fastapi", store=place / "store", out=place / "package").path
    with started([sys.executable, "-I", "-B", "-c", LAUNCH, str(folder)], folder, {}) as running:
        yield running


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    from mlpack.cli.app import run as run_words

    def call(*words):
        code = run_words(["bench", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_closed_loops_against_the_packaged_server(served):
    done = bench_server(served.url, clients=(1, 3), seconds=SHORT)
    assert (done.model, done.version, done.form, done.rows) == ("tiny-mlp", "1", "binary", "synthetic")
    assert done.server == "mlpack-fastapi 1"
    for each in done.loads:
        assert each.load.good == each.load.requests > 6
        assert each.load.errors == {}
        assert each.load.quantile("p50").ms > 0
        assert [part.name for part in each.split.parts] == [NETWORK, *PARTS]
        assert sum(part.share for part in each.split.parts) == pytest.approx(1)
        assert all(part.mean_ms > 0 for part in each.split.parts)
        assert each.split.source == "the server's /metrics"
    assert any("share this machine" in note for note in done.notes)


def test_an_open_loop_sends_its_schedule(served):
    (result,) = bench_server(served.url, model="tiny-mlp", rates=(40,), seconds=1, seed=3).loads
    assert result.load.requests == 40
    assert result.load.arrivals == "open"
    assert result.load.lag_p99_ms >= 0


def test_it_works_where_an_event_loop_runs_already(served):
    async def cell():
        return bench_server(served.url, clients=(1,), seconds=SHORT)

    assert asyncio.run(cell()).loads[0].load.good > 6


def test_rows_of_a_file_and_batches(served, tmp_path):
    np.savez(tmp_path / "rows.npz", features=np.random.default_rng(0).normal(size=(20, 8)))
    before = served.metrics()
    done = bench_server(served.url, clients=(1,), seconds=SHORT, batch=5, data=tmp_path / "rows.npz")
    after = served.metrics()
    rows = after["inference_batch_rows_sum"] - before["inference_batch_rows_sum"]
    requests = after["inference_request_seconds_count"] - before["inference_request_seconds_count"]
    assert (done.batch, done.rows) == (5, str(tmp_path / "rows.npz"))
    assert rows == 5 * requests


def test_a_stall_is_charged_to_all_that_was_due_in_it_only_in_an_open_loop(served):
    """Coordinated omission: a client that waits for its answer sends nothing while the server stands still."""
    stall_s, rate = 0.5, 100

    def stop_once():
        time.sleep(0.6)
        os.kill(served.process.pid, signal.SIGSTOP)
        time.sleep(stall_s)
        os.kill(served.process.pid, signal.SIGCONT)

    async def drive(loop):
        async with CLIENTS["http"](served.url, 30.0) as client:
            await client.server()
            arrays = {"features": np.ones((1, 8), np.float32)}
            ask = Asking(client, [client.request("tiny-mlp", arrays)], ("logits", "score"))
            await ask()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(stop_once)
                return await loop(ask)

    opened = run(lambda: drive(lambda ask: open_loop(ask, poisson_times(rate, 2.0, 1), 2.0, 0.0)))
    closed = run(lambda: drive(lambda ask: closed_loop(ask, 1, 2.0, 0.0)))
    slow = [sum(each.done - each.due > 0.1 for each in drive.answers) for drive in (opened, closed)]
    # What was due in the first 0.4 s of the stall waited over 0.1 s: 40 of 200 in the mean.
    assert slow[0] >= 25
    assert slow[1] <= slow[0] / 4
    waits = np.array([each.done - each.due for each in opened.answers])
    assert np.quantile(waits, 0.9) > 0.1


def test_a_server_that_is_stopped_in_between_is_counted_not_hidden(tmp_path):
    make(tmp_path / "store", "mlp")
    folder = package("tiny-mlp", runtime="fastapi", store=tmp_path / "store", out=tmp_path / "package").path
    with started([sys.executable, "-I", "-B", "-c", LAUNCH, str(folder)], folder, {}) as running:
        killing = threading.Timer(1.5, lambda: os.killpg(running.process.pid, signal.SIGKILL))
        killing.start()
        (result,) = bench_server(running.url, rates=(30,), seconds=3).loads
        killing.join()
    load = result.load
    assert 0 < load.good < load.requests
    assert sum(load.errors.values()) == load.requests - load.good
    assert any("the connection broke" in error for error in load.errors)
    assert any("requests failed" in note for note in load.notes)
    assert not result.split.parts


def test_the_command_line(served, cli):
    code, out, err = cli("--server", served.url, "--clients", "1,2", "--seconds", str(SHORT))
    assert (code, out) == (0, "")
    for part in ("1 client", "2 clients", "P99.9", "network", "postprocess", "tiny-mlp version 1 on mlpack-fastapi"):
        assert part in err, part
    tables = [line for line in err.splitlines() if not line.startswith(("warning", "client and server"))]
    assert max(map(len, tables)) <= 80
    code, out, _ = cli("--server", served.url, "--rate", "30", "--seconds", "1", "--json")
    document = json.loads(out)
    (load,) = document["loads"]
    assert code == 0
    assert (load["rate"], load["clients"], load["arrivals"]) == (30, None, "open")
    assert (load["p999"], load["errors"]) == (None, {})
    assert "cannot carry it" in load["p999_reason"]
    assert sum(each["share"] for each in load["components"]) == pytest.approx(1)


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_at_once_when_it_is_told_to(served, tmp_path, sent, exit_code):
    command = [sys.executable, "-c", "from mlpack.cli.app import main; main()", "bench", "--server", served.url]
    environment = {**os.environ, "MLPACK_CACHE": str(tmp_path)}
    process = subprocess.Popen([*command, "--seconds", "600"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        before = served.metrics()["inference_request_seconds_count"]
        deadline = time.monotonic() + 300
        while served.metrics()["inference_request_seconds_count"] < before + 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sent)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == exit_code
    assert "Traceback" not in err
    assert "Exception in" not in err


REFUSED = {
    "other scheme": (("--server", "ftp://127.0.0.1:1"), 2, "does not begin with http:// or grpc://"),
    "no scheme": (("--server", "127.0.0.1:8000"), 2, "does not begin with"),
    "bad port": (("--server", "http://127.0.0.1:99999"), 2, "is no address"),
    "no host": (("--server", "http://"), 2, "lacks a host"),
    "no port": (("--server", "grpc://127.0.0.1"), 2, "lacks a port"),
    "nothing there": (("--server", "http://127.0.0.1:1"), 3, "nothing answers at http://127.0.0.1:1"),
    "nothing there, gRPC": (("--server", "grpc://127.0.0.1:1"), 3, "nothing answers gRPC"),
    "no such host": (("--server", "http://no.such.host.invalid:80"), 3, "nothing answers"),
    "unknown model": (("--server", "URL", "--model", "tiny-mpl"), 2, "unknown model 'tiny-mpl'"),
    "rate 0": (("--server", "URL", "--rate", "0"), 2, "above 0, not 0"),
    "rate nan": (("--server", "URL", "--rate", "nan"), 2, "above 0, not nan"),
    "rate word": (("--server", "URL", "--rate", "fast"), 2, "numbers with commas"),
    "rate too small": (("--server", "URL", "--rate", "0.1"), 2, "too few to measure"),
    "rate too large": (("--server", "URL", "--rate", "1e9"), 2, "more than 1,000,000"),
    "clients 0": (("--server", "URL", "--clients", "0"), 2, "clients are 1 to 256"),
    "clients word": (("--server", "URL", "--clients", "1.5"), 2, "whole numbers"),
    "both loops": (("--server", "URL", "--rate", "5", "--clients", "1"), 2, "leave one out"),
    "no time": (("--server", "URL", "--seconds", "0"), 2, "no time to measure in"),
    "batches": (("--server", "URL", "--batch", "1,8"), 2, "one batch size at a time"),
    "batch 0": (("--server", "URL", "--batch", "0"), 2, "at least one row"),
    "no data": (("--server", "URL", "--data", "none.npz"), 2, "there is no data at none.npz"),
    "too large a batch": (("--server", "URL", "--batch", "100"), 4, "at most 8 in one request"),
    "a model beside it": (("tiny-mlp", "--server", "URL"), 2, "MODEL is for models that run here"),
    "a backend beside it": (("--server", "URL", "--backend", "all"), 2, "--backend is for models that run here"),
    "rate without a server": (("--rate", "5"), 2, "--rate is for a running server"),
    "model without a server": (("--model", "x"), 2, "--model is for a running server"),
}  # fmt: skip


def test_bad_input_is_refused_in_clear_lines(served, cli, tmp_path):
    for what, (words, exit_code, said) in REFUSED.items():
        code, _, err = cli(*(served.url if word == "URL" else word for word in words))
        assert code == exit_code, (what, err)
        assert said in err, what
        assert "hint: " in err, what
        assert "Traceback" not in err, what


def test_data_that_does_not_fit_is_refused(served, tmp_path):
    np.savez(tmp_path / "wide.npz", features=np.ones((4, 9), np.float32))
    with pytest.raises(DataError, match="the model's input 'features' is"):
        bench_server(served.url, data=tmp_path / "wide.npz")
    np.savez(tmp_path / "few.npz", features=np.ones((4, 8), np.float32))
    with pytest.raises(DataError, match="has 4 rows, fewer than one request of 5"):
        bench_server(served.url, data=tmp_path / "few.npz", batch=5)


def test_a_grpc_client_on_a_http_port_is_told_so(served):
    with pytest.raises(MachineError, match="nothing answers gRPC") as refused:
        bench_server(served.url.replace("http", "grpc"))
    assert "--server http://" in refused.value.hint


class Website(http.server.BaseHTTPRequestHandler):
    """A web server that is no inference server, or one that only half is: `answers` by path."""

    answers: dict[str, object] = {}  # noqa: RUF012 - each test makes a subclass

    def do_GET(self):
        found = self.answers.get(self.path)
        self.send_response(404 if found is None else 200)
        content = b"not here" if found is None else json.dumps(found).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def website():
    running = []

    def start(**answers):
        handler = type("Handler", (Website,), {"answers": {f"/{path}": told for path, told in answers.items()}})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_a_website_is_no_inference_server(website):
    with pytest.raises(
        UsageError, match=r"does not speak the V2 inference protocol over HTTP \(GET /v2 gives HTTP 404"
    ):
        bench_server(website())


def test_answers_that_lack_an_output_are_errors_with_their_reason(website):
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    model = {"name": "m", "inputs": [tensor], "outputs": [{"name": "y"}]}
    good = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
    wrong = {
        "the answer lacks the output 'y'": {"outputs": [{**good["outputs"][0], "name": "z"}]},
        "the output 'y' is empty": {"outputs": [{**good["outputs"][0], "data": []}]},
        "the answer is not one of the V2 protocol": {"predictions": [1]},
    }
    for reason, answer in wrong.items():
        url = website(**{"v2": {"name": "half"}, "v2/models/m": model, "v2/models/m/infer": answer})
        with pytest.raises(StageFailed, match=reason):
            bench_server(url, model="m", clients=(1,), seconds=SHORT)
    url = website(**{"v2": {"name": "half"}, "v2/models/m": model, "v2/models/m/infer": good})
    (result,) = bench_server(url, model="m", clients=(1,), seconds=SHORT).loads
    assert "no statistics" in result.split.reason
    with pytest.raises(UsageError, match="does not list its models"):
        bench_server(url)
    text = {**model, "inputs": [{**tensor, "datatype": "BYTES"}]}
    with pytest.raises(UsageError, match="'x' is BYTES"):
        bench_server(website(**{"v2": {"name": "half"}, "v2/models/m": text}), model="m")
    silent = {"name": "m"}
    with pytest.raises(UsageError, match="does not say what 'm' takes"):
        bench_server(website(**{"v2": {"name": "half"}, "v2/models/m": silent}), model="m")


class Inference(stubs.GRPCInferenceServiceServicer):
    """A server of gRPC's own library with the protocol's generated stubs: y = 2 x, with Triton's statistics."""

    def __init__(self):
        self.models = ["double"]
        self.refuse_every = 0
        self.asked = self.answered = 0

    def ServerMetadata(self, request, context):
        return messages.ServerMetadataResponse(name="small", version="1")

    def RepositoryIndex(self, request, context):
        index = messages.RepositoryIndexResponse.ModelIndex
        return messages.RepositoryIndexResponse(models=[index(name=name, state="READY") for name in self.models])

    def ModelMetadata(self, request, context):
        if request.name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        tensor = messages.ModelMetadataResponse.TensorMetadata
        return messages.ModelMetadataResponse(
            name=request.name,
            versions=["1"],
            inputs=[tensor(name="x", datatype="FP32", shape=[-1, 4])],
            outputs=[tensor(name="y", datatype="FP32", shape=[-1, 4])],
        )

    def ModelInfer(self, request, context):
        self.asked += 1
        if self.refuse_every and self.asked % self.refuse_every == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        self.answered += 1
        doubled = np.frombuffer(request.raw_input_contents[0], np.float32) * 2
        output = messages.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=request.inputs[0].shape)
        return messages.ModelInferResponse(outputs=[output], raw_output_contents=[doubled.tobytes()])

    def ModelStatistics(self, request, context):
        def spent(ns):
            return messages.StatisticDuration(count=self.answered, ns=ns * self.answered)

        sums = messages.InferStatistics(
            success=spent(20), queue=spent(1), compute_input=spent(2), compute_infer=spent(3), compute_output=spent(4)
        )
        return messages.ModelStatisticsResponse(
            model_stats=[messages.ModelStatistics(name=request.name, inference_stats=sums)]
        )


@pytest.fixture
def inference():
    server = grpc.server(ThreadPoolExecutor(8))
    service = Inference()
    stubs.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def test_grpc_with_statistics(inference):
    _, url = inference
    done = bench_server(url, clients=(1, 3), seconds=SHORT, batch=2)
    assert (done.server, done.model, done.version, done.form) == ("small 1", "double", "1", "protobuf")
    for each in done.loads:
        assert each.load.good == each.load.requests > 6
        parts = {part.name: part.mean_ms for part in each.split.parts}
        assert [parts[name] for name in PARTS] == pytest.approx([1e-6, 2e-6, 3e-6, 4e-6])
        assert sum(part.share for part in each.split.parts) == pytest.approx(1)
    (opened,) = bench_server(url, rates=(50,), seconds=1).loads
    assert opened.load.good == opened.load.requests


def test_grpc_refusals_are_counted_and_named(inference):
    service, url = inference
    service.refuse_every = 4
    (result,) = bench_server(url, clients=(2,), seconds=SHORT).loads
    assert list(result.load.errors) == ["RESOURCE_EXHAUSTED: the queue is full"]
    assert result.load.good + result.load.errors["RESOURCE_EXHAUSTED: the queue is full"] == result.load.requests
    service.refuse_every = 1
    with pytest.raises(StageFailed, match="answered no request for 'double': RESOURCE_EXHAUSTED: the queue is full"):
        bench_server(url, clients=(1,), seconds=SHORT)


def test_several_models_are_listed_and_an_unknown_one_corrected(inference):
    service, url = inference
    service.models = ["double", "triple"]
    with pytest.raises(UsageError, match="2 models are ready: double, triple"):
        bench_server(url)
    with pytest.raises(UsageError, match="unknown model 'tripel'") as refused:
        bench_server(url, model="tripel")
    assert "'triple'" in refused.value.hint
    service.models = []
    with pytest.raises(UsageError, match="no model is ready"):
        bench_server(url)


def test_a_http_client_on_a_grpc_port_is_told_so(inference):
    _, url = inference
    with pytest.raises(UsageError) as refused:
        bench_server(url.replace("grpc", "http"))
    assert "--server grpc://" in refused.value.hint


def test_a_grpc_server_of_another_service_is_told():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(UsageError, match="not in the V2 inference protocol"):
            bench_server(f"grpc://127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def test_a_token_of_the_environment_is_sent(monkeypatch):
    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.headers["Authorization"] == "Bearer open sesame" else 401)
            self.end_headers()
            self.wfile.write(b'{"name": "guarded", "version": "1"}')

        def log_message(self, *_):
            pass

    async def asked():
        async with CLIENTS["http"](f"http://127.0.0.1:{server.server_port}", 30.0) as client:
            return await client.server()

    with http.server.HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UsageError, match="HTTP 401"):
            run(asked)
        monkeypatch.setenv("AUTH_TOKEN", "open sesame")
        assert run(asked) == "guarded 1"
        server.shutdown()


def test_without_its_libraries_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlpack.measure.clients.v2_http", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    from mlpack.errors import MissingLibrary

    with pytest.raises(MissingLibrary) as missing:
        bench_server("http://127.0.0.1:1")
    assert missing.value.hint == "pip install 'mlpack-toolchain[server]'"


def test_a_port_that_takes_connections_and_never_answers_is_given_up(monkeypatch):
    import socket

    import mlpack.measure.clients.v2_http as client

    monkeypatch.setattr(client, "_QUESTION_S", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", free_port()))
        deaf.listen()
        with pytest.raises(MachineError, match="no answer in time"):
            bench_server(f"http://127.0.0.1:{deaf.getsockname()[1]}")
