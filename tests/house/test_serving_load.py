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
    found = ideal.latencies(np.array([0.0, 0.1, 0.2, 0.3, 9.0]), service, seed=0)
    assert found == pytest.approx([1.0, 2.4, 2.3, 3.2, 1.0])


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
    ]
    peers = {"clients": 32, "rate": 70.0, "most_rows": 8, "rows": rows}
    text = tables.serving_load({"model": "m", "runs_as": "int8", "peers": peers})
    assert "| ours<br>a | 100/s | 3.0 ms | – | 3.0 ms | – | 0 |" in text
    assert "| theirs<br>b | did not start: no / such program | – | – | – | – | – |" in text
