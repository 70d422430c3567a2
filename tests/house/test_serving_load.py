"""The load benchmark: its ideal queue, its client, and what its page says where a server does not start."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
from repository import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import serving_load_client as lean
import serving_load_forms as forms
import serving_load_ideal as ideal
import tables

from mlpack.measure.clients.client import Failed


def test_the_ideal_queue_takes_all_that_wait_up_to_its_largest_batch():
    service = {1: np.array([1.0]), 2: np.array([1.5])}
    # The first runs alone; two of the three that came meanwhile run together; the fifth finds it free.
    found, sizes = ideal.queue(np.array([0.0, 0.1, 0.2, 0.3, 9.0]), service, seed=0)
    assert found == pytest.approx([1.0, 2.4, 2.3, 3.2, 1.0])
    assert sizes == [1, 2, 1, 1]


def answering(*answers):
    """Ask a server that gives these answers, one for each request, in two pieces; what comes of each."""

    async def serve(reader, writer):
        for answer in answers:
            length = int((await reader.readuntil(b"\r\n\r\n")).split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            for piece in (answer[:20], answer[20:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    async def go():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            client = lean.Lean(server.sockets[0].getsockname()[1])
            found = []
            for _ in answers:
                try:
                    found.append(await client.send(lean.post("/x", b"{}", {})))
                except Failed as error:
                    found.append(str(error))
            client.close()
            return found

    return asyncio.run(go())


def test_the_client_reads_answers_one_after_the_other():
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"
    refused = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length:4\r\nX: y\r\n\r\nfull"
    assert answering(good, refused, good) == [b"first", "HTTP 429", b"first"]


def test_the_client_tells_of_a_connection_that_breaks():
    (told,) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\ncut off")
    assert told.startswith("the connection broke")


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("json", b'{"outputs":[{"name":"y","data":[1.5,-2.0]}]}'),
        ("samples", b"[[1.5,-2.0]]"),
        ("samples", b'{"outputs":[[1.5,-2.0]]}'),
        ("binary", b'{"outputs":[{"name":"y"}]}' + np.array([1.5, -2.0], np.float32).tobytes()),
    ],
)
def test_the_values_of_each_form_are_read(form, answer):
    assert forms.values(form, answer).tolist() == [1.5, -2.0]


def test_a_server_that_did_not_start_stands_in_the_table_with_its_reason():
    loaded = {"throughput": 100.0, "p50_ms": 3.0, "p99_ms": None, "failed": 0, "errors": {}}
    rows = [
        {"server": "ours", "settings": "a", "form": "json", "full": loaded, "shared": loaded},
        {"server": "theirs", "settings": "b", "form": "json", "why": "no | such program"},
        {"server": "slow", "settings": "c", "form": "json", "full": loaded, "shared": loaded,
         "ahead": {"ratio": 1.25, "low": 1.1, "high": 1.4, "turns": 20}},
    ]  # fmt: skip
    peers = {"clients": 32, "rate": 70.0, "most_rows": 8, "rows": rows}
    text = tables.serving_load({"model": "m", "runs_as": "int8", "peers": peers})
    assert "| ours<br>a | 100/s | – | 3.0 ms | – | 3.0 ms | – | 0 |" in text
    assert "| slow<br>c | 100/s | 1.25 × [1.10, 1.40] | 3.0 ms" in text
    assert "| theirs<br>b | did not start: no / such program | – | – | – | – | – | – |" in text


def test_what_was_asked_is_met_or_missed_by_the_medians():
    busy = {"loop": 0.3, "session": 0.98, "client": 0.05}
    ours = {
        "curve": {"1": 500.0, "16": 960.0}, "carried": {"8": 850.0, "16": 900.0}, "most_rows": 16,
        "throughput": [{"ours": 900.0, "bare": 960.0, "ratio": ratio, "busy": busy} for ratio in (0.8, 0.94, 0.95)],
        "busy": [{"rate": 630.0, "p99_ms": 40.0, "ideal_p99_ms": 20.0, "ratio": 2.0}],
        "overload": [{"rate": 2700.0, "goodput": 880.0, "ratio": 0.98, "errors": {"HTTP 429": 1800}, "unsent": 0,
                      "before_mb": 270.0, "after_mb": 271.0}],
    }  # fmt: skip
    lines = tables.serving_load({"model": "m", "runs_as": "int8", "ours": ours}).splitlines()
    assert "| 900/s of 960/s | 94.0% | at least 90% | met |" in lines[4]
    assert "| 40.0 ms of 20.0 ms | 2.00 × | at most 1.3 × | **missed** |" in lines[5]
    assert "| 880/s; the rest: 1,800 × HTTP 429 | 98.0% | at least 90% | met |" in lines[6]
    assert "| 270 → 271 MB | +1.0 MB | flat |" in lines[7]


def test_perf_analyzer_and_ours_are_compared_by_the_medians():
    pair = {"ours": {"throughput": 95.0, "p50_ms": 10.5, "queue_ms": 1.0, "compute_ms": 8.0},
            "perf": {"throughput": 100.0, "p50_ms": 10.0, "queue_ms": 1.1, "compute_ms": 8.1}}  # fmt: skip
    triton = {"rows": [{"protocol": "http", "batch": 8, "clients": 4, "pairs": [pair]}], "notes": []}
    text = tables.serving_load({"model": "m", "runs_as": "int8", "triton": triton})
    assert "| http, 8 rows | 4 | 95/s and 100/s | -5.0% | 10.50 and 10.00 ms | +5.0% | 1.00 and 1.10 ms |" in text
    assert "At most 5.0% apart" in text
