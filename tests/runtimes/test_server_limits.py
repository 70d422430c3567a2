"""What slow, idle, lying and too many clients cost: an answer that says so, and nothing for the others."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from serving import LAUNCH, built_package, run_client, serving, started

from mlpack.core.model import TensorSpec
from mlpack.runtimes.templates.fastapi.server.environment import listen

INFER = "/v2/models/tiny-mlp/infer"
SLOW = "/v2/models/tiny-slow/infer"
WIDE = 100_000


def body(rows=1, width=8, **parameters):
    tensor = {"name": "features", "datatype": "FP32", "shape": [rows, width], "data": [1.0] * (rows * width)}
    return {"inputs": [tensor], "parameters": parameters}


def head(path, length, kind="application/json"):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


@contextlib.contextmanager
def connected(server):
    with socket.create_connection(server.address, timeout=300) as link:
        yield link


def whole(link):
    """Everything until the server closes the connection."""
    parts = []
    while part := link.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One server for the tests that leave it as it is."""
    with serving(built_package(tmp_path_factory.mktemp("plain"))) as server:
        yield server


def test_who_waits_too_long_is_told_and_leaves_the_queue(packaged, serve):
    server = serve(packaged("slow", max_batch=1))
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(server.ask, SLOW, body(width=700))
        late = [pool.submit(server.ask, SLOW, body(width=700, timeout=1000)) for _ in range(10)]
        for each in late:
            assert each.result() == (504, {"error": "no answer within 1 ms"})
        assert server.metrics()["inference_queue_depth"] <= 1
        assert first.result()[0] == 200
    ran = server.metrics()["inference_batch_rows_count"]
    assert ran < 11, "the model ran for those who had left"
    assert server.metrics()['inference_requests_total{status="504"}'] == 10


def test_the_packages_own_limit_holds_where_the_client_asks_for_more(packaged, serve):
    server = serve(packaged("slow", timeout_ms=2))
    assert server.ask(SLOW, body(width=700)) == (504, {"error": "no answer within 2 ms"})
    assert server.ask(SLOW, body(width=700, timeout=60_000_000))[0] == 504


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, None])
def test_a_timeout_that_is_none_is_refused(plain, value):
    status, answer = plain.ask(INFER, body(timeout=value))
    assert (status, answer["error"]) == (400, "the parameter 'timeout' must be a whole number of microseconds")


def test_slow_clients_get_408_and_harm_nobody(packaged, serve):
    folder = packaged()
    server = serve(folder, CLIENT_SECONDS="1")
    with contextlib.ExitStack() as stack:
        body_comes_slowly, head_comes_slowly, silent = (stack.enter_context(connected(server)) for _ in range(3))
        body_comes_slowly.sendall(head(INFER, 1000) + b"{")
        head_comes_slowly.sendall(b"POST /v2 HTTP/1.1\r\nHost:")
        assert run_client(folder, server.url).returncode == 0
        for link, what in ((body_comes_slowly, b"the body did not come"), (head_comes_slowly, b"the head of the req")):
            answer = whole(link)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert what in answer
        assert whole(silent) == b""
    assert server.metrics()['inference_requests_total{status="408"}'] == 1


def test_a_head_that_drips_is_cut_off_too(packaged, serve):
    server = serve(packaged(), CLIENT_SECONDS="1")
    with connected(server) as link:
        link.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        link.recv(65536)
        # uvicorn's own timer is over with the first byte of the next request.
        with contextlib.suppress(OSError):
            for letter in "GET /" + "v" * 200:
                link.sendall(letter.encode())
                time.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            assert b"408" in whole(link)
    assert server.ask("/v2/health/ready")[0] == 200


def test_a_thousand_idle_connections_leave_room_for_a_client(plain):
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(plain))
        assert run_client(plain.package, plain.url).returncode == 0
        assert plain.ask("/v2/health/ready")[0] == 200


def test_more_idle_connections_than_files_cost_the_oldest_theirs(packaged):
    folder = packaged()
    command = ["sh", "-c", 'ulimit -n 300; exec "$0" "$@"', sys.executable, "-I", "-B", "-c", LAUNCH, str(folder)]
    with started(command, folder, {}) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(server)) for _ in range(600)]
        assert run_client(folder, server.url).returncode == 0
        assert idle[0].recv(1) == b""


def test_a_cut_off_body_is_a_400_that_nobody_hears(packaged, serve):
    server = serve(packaged())
    with connected(server) as link:
        link.sendall(head(INFER, 1000) + b'{"inputs"')
    while server.metrics().get('inference_requests_total{status="400"}') != 1:
        time.sleep(0.02)
    assert server.ask(INFER, body())[0] == 200
    assert server.metrics()["inference_held_bytes"] == 0


@pytest.mark.parametrize(
    ("path", "headers", "said"),
    [
        (INFER, {"Content-Type": "text/plain"}, "a body of text/plain is not read here"),
        (INFER, {"Content-Type": "application/x-www-form-urlencoded"}, "send 'Content-Type: application/json'"),
        (INFER, {"Content-Type": "application/octet-stream"}, "needs the header Inference-Header-Content-Length"),
        (INFER, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, "'gzip' encoding is not read"),
        ("/predict", {"Content-Type": "multipart/form-data; boundary=a"}, "a body of multipart/form-data"),
    ],
)
def test_other_forms_of_bodies_are_415(plain, path, headers, said):
    status, _, answer = plain.exchange("POST", path, json.dumps(body()).encode(), headers)
    assert (status, said in json.loads(answer)["error"]) == (415, True)


@pytest.mark.parametrize("kind", ["", "application/json; charset=utf-8", "Application/JSON", "application/v2+json"])
def test_json_may_be_called_by_its_names(plain, kind):
    headers = {"Content-Type": kind} if kind else {}
    assert plain.exchange("POST", INFER, json.dumps(body()).encode(), headers)[0] == 200


def test_bodies_that_wait_are_bounded_together(packaged, serve):
    server = serve(packaged(), MAX_HELD_BYTES="3000")
    request = json.dumps(body()).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            link = stack.enter_context(connected(server))
            link.sendall(head(INFER, 4000) + b" " * 1400)
        while server.metrics()["inference_held_bytes"] < 2800:
            time.sleep(0.02)
        status, headers, answer = server.exchange("POST", INFER, request + b" " * 300, {})
        assert (status, headers["Retry-After"]) == (429, "1")
        assert b"too large together" in answer
    while server.metrics()["inference_held_bytes"]:
        time.sleep(0.02)
    assert server.ask(INFER, body())[0] == 200


def wide_graph():
    """One row in, more than the buffers of a connection hold out."""
    inputs = [TensorSpec(name="features", dtype="float32", dims=("batch", 8))]
    outputs = [TensorSpec(name="wide", dtype="float32", dims=("batch", WIDE))]
    nodes = [helper.make_node("MatMul", ["features", "w"], ["wide"])]
    weights = [numpy_helper.from_array(np.full((8, WIDE), 0.1, np.float32), "w")]
    sides = [
        [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, list(each.dims))] for each in inputs + outputs
    ]
    graph = helper.make_graph(nodes, "wide", *sides, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return {"built": (model, inputs, outputs), "given": {"features": np.ones((6, 8), np.float32)}}


def test_who_does_not_read_the_answer_loses_it(packaged, serve):
    server = serve(packaged("wide", changes=wide_graph()), CLIENT_SECONDS="1")
    request = json.dumps(body(rows=8)).encode()
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(server.address)
        link.sendall(head("/v2/models/tiny-wide/infer", len(request)) + request)
        first = link.recv(1024)
        length = int(first.lower().partition(b"content-length:")[2].split()[0])
        time.sleep(2.5)
        received = len(first)
        with contextlib.suppress(ConnectionError):
            received += len(whole(link))
    assert received < length
    assert server.ask("/v2/health/ready")[0] == 200


def test_heads_are_bounded(plain):
    with connected(plain) as link:
        link.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)
        answer = whole(link)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "the head of the request is too long"}
    assert plain.ask("/v2/health/ready")[0] == 200


CHUNKED = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "what", ["2\r\n{}\r\n0\r\n", "2;", "2\r\n{}\r\n0\r\nX-Long: "], ids=["trailers", "extension", "trailer"]
)
def test_what_stands_beside_a_body_is_bounded_too(plain, what):
    flood = "X-More: more\r\n" * 70 if what.endswith("0\r\n") else "a" * 1000
    with connected(plain) as link, contextlib.suppress(ConnectionError):
        link.sendall((CHUNKED + what).encode())
        for _ in range(5000):
            link.sendall(flood.encode())
        pytest.fail("nobody cut it off")
    assert plain.ask(INFER, body())[0] == 200


def test_requests_sent_ahead_are_answered_in_their_order(plain):
    request = json.dumps(body()).encode()
    with connected(plain) as link:
        link.sendall(
            (head(INFER, len(request)) + request) * 20
            + b"GET /v2/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = whole(link)
    codes = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert codes == [*[b"200"] * 20, b"404"]


def test_what_was_asked_before_nonsense_is_answered(plain):
    request = json.dumps(body()).encode()
    with connected(plain) as link:
        link.sendall((head(INFER, len(request)) + request) * 3 + b"nonsense\r\n\r\n")
        answer = whole(link)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 3


def test_chunks_that_are_none_are_a_400(plain):
    with connected(plain) as link:
        link.sendall((CHUNKED + "nonsense\r\n").encode())
        assert whole(link).startswith(b"HTTP/1.1 400 ")


def test_an_offer_to_change_the_protocol_is_passed_over(plain):
    # As curl --http2 sends it.
    request = json.dumps(body()).encode()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    with connected(plain) as link:
        link.sendall(head(INFER, len(request)).removesuffix(b"\r\n") + offer + request)
        link.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = whole(link)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]
    assert b'"outputs"' in answer


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01", b"GET /v2 HTTP/1.1\r\nHost : x\r\n\r\n",
     b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
     b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_a_400(plain, sent):
    with connected(plain) as link:
        link.sendall(sent)
        answer = whole(link)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "this is no HTTP request"}
    assert plain.ask("/v2/health/ready")[0] == 200


def test_small_answers_are_sent_at_once(monkeypatch):
    # asyncio leaves Nagle's algorithm on where it is not told that a socket is TCP's: 40 ms for every answer.
    monkeypatch.setenv("PORT", "0")
    with listen() as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_who_goes_away_leaves_the_queue(packaged, serve):
    server = serve(packaged("slow", max_batch=1))
    request = json.dumps(body(width=700)).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(server)).sendall(head(SLOW, len(request)) + request)
        while server.metrics()["inference_queue_depth"] < 10:
            assert server.metrics().get('inference_requests_total{status="200"}', 0) < 10, "too fast to show anything"
    while server.metrics()["inference_queue_depth"]:
        time.sleep(0.02)
    found = server.metrics()
    assert found['inference_requests_total{status="499"}'] >= 10
    assert found["inference_batch_rows_count"] <= 11
    assert found["inference_held_bytes"] == 0
