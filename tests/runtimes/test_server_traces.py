"""Spans of requests, as a collector on this machine gets them."""

from __future__ import annotations

import gzip
import http.server
import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from serving import LAUNCH, free_port

INFER = "/v2/models/tiny-mlp/infer"
BODY = json.dumps({"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}]}).encode()
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps the spans."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Taking)
        self.spans = []
        self.resources = []


class Taking(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        told = trace_service.ExportTraceServiceRequest.FromString(raw)
        for each in told.resource_spans:
            self.server.resources += [(pair.key, pair.value.string_value) for pair in each.resource.attributes]
            self.server.spans += [span for scope in each.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ended(server):
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) in {0, -signal.SIGTERM}


def test_a_request_is_a_span_with_its_parts_below_the_callers(packaged, serve, collector):
    folder = packaged(traces="otlp")
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    server = serve(folder, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    status, _, _ = server.exchange("POST", INFER, BODY, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert status == 200
    assert server.exchange("POST", INFER, b"{")[0] == 400
    # Ending sends what is left.
    ended(server)
    assert ("service.name", "tiny-mlp") in collector.resources
    spans = {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE}
    whole = spans.pop(f"POST {INFER}")
    assert whole.parent_span_id.hex() == PARENT
    assert {pair.key: pair.value.int_value for pair in whole.attributes}["http.response.status_code"] == 200
    assert set(spans) == {"preprocess", "queue", "compute", "postprocess"}
    assert {span.parent_span_id for span in spans.values()} == {whole.span_id}
    order = [spans[part] for part in ("preprocess", "queue", "compute", "postprocess")]
    times = [whole.start_time_unix_nano]
    for span in order:
        times += [span.start_time_unix_nano, span.end_time_unix_nano]
    times.append(whole.end_time_unix_nano)
    assert times == sorted(times)
    assert abs(times[0] / 1e9 - time.time()) < 600
    others = [span for span in collector.spans if span.trace_id.hex() != TRACE]
    assert [{pair.key: pair.value.int_value for pair in span.attributes}["http.response.status_code"]
            for span in others if not span.parent_span_id] == [400]  # fmt: skip


def test_a_collector_that_is_not_there_costs_nobody_an_answer(packaged, serve):
    nowhere = f"http://127.0.0.1:{free_port()}"
    server = serve(packaged(traces="otlp"), OTEL_EXPORTER_OTLP_ENDPOINT=nowhere, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    for _ in range(5):
        assert server.exchange("POST", INFER, BODY)[0] == 200
    ended(server)


def test_nothing_is_sent_where_nobody_said_where_to(packaged):
    folder = packaged(traces="otlp")
    assert "opentelemetry-sdk==" in (folder / "requirements.txt").read_text()
    command = [sys.executable, "-I", "-B", "-c", LAUNCH, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PORT": "0"}, timeout=300)
    assert (done.returncode, "set OTEL_EXPORTER_OTLP_ENDPOINT" in done.stderr) == (2, True)
