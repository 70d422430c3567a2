"""Answers that are kept: in this process, and in a real Redis, which may go away at any time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from serving import LAUNCH, free_port, run_client
from test_v2_protocol import described

from mlpack.errors import UsageError
from mlpack.runtimes.templates.fastapi.server.cache import MemoryStore, Unavailable
from mlpack.runtimes.templates.fastapi.server.description import Tensor

INFER = "/v2/models/tiny-mlp/infer"


def body(value=1.0, rows=1):
    tensor = {"name": "features", "datatype": "FP32", "shape": [rows, 8], "data": [value] * (8 * rows)}
    return {"inputs": [tensor]}


def counted(server):
    found = server.metrics()
    return {
        result: found[f'inference_cache_requests_total{{result="{result}"}}'] for result in ("hit", "miss", "error")
    }


def entry(value, width=100):
    return {"y": np.full((1, width), value, np.float32)}


def test_the_memory_store_is_bounded_and_forgets_what_was_asked_for_longest_ago():
    async def go():
        store = MemoryStore(3 * (400 + 512))
        for turn in range(3):
            await store.put(bytes([turn]), entry(turn))
        assert await store.get(b"\0") is not None
        await store.put(b"\3", entry(3))
        found = [await store.get(bytes([turn])) is not None for turn in range(4)]
        await store.put(b"\4", entry(4, width=10_000))
        assert await store.get(b"\4") is None
        return found, store.size_bytes

    found, size = asyncio.run(go())
    assert found == [True, False, True, True]
    assert size == 3 * (400 + 512)


def test_what_is_kept_cannot_be_changed_from_outside():
    async def go():
        store = MemoryStore(10_000)
        whole = np.ones((4, 2), np.float32)
        await store.put(b"a", {"y": whole[:1]})
        whole[:] = 0
        first = await store.get(b"a")
        first["y"][:] = 7
        return (await store.get(b"a"))["y"]

    assert asyncio.run(go()).tolist() == [[1.0, 1.0]]


def test_only_the_same_request_is_answered_from_memory(packaged, serve):
    folder = packaged(cache="memory", cache_mb=1)
    server = serve(folder)
    first = server.ask(INFER, body())
    assert server.ask(INFER, body()) == first
    assert counted(server) == {"hit": 1, "miss": 1, "error": 0}
    ran = server.metrics()["inference_batch_rows_count"]
    assert ran == 1
    assert server.ask(INFER, body(np.nextafter(np.float32(1), np.float32(2)).item()))[1] != first[1]
    assert server.ask(INFER, body(rows=2))[1]["outputs"][0]["shape"] == [2, 3]
    assert counted(server) == {"hit": 1, "miss": 3, "error": 0}
    assert 0 < server.metrics()["inference_cache_bytes"] < 1_000_000
    for _ in range(2):
        assert run_client(folder, server.url).returncode == 0
    assert counted(server)["hit"] == 7


def test_raw_samples_are_answered_from_the_outputs_of_their_tensors(packaged, serve):
    folder = packaged("reviews", cache="memory")
    server = serve(folder)
    answers = [server.ask("/predict", {"text": "good film"}) for _ in range(2)]
    assert answers[0] == answers[1]
    assert counted(server) == {"hit": 1, "miss": 1, "error": 0}


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_batch_dependent_model_gets_no_cache(packaged, store):
    with pytest.raises(UsageError, match="answers differently in different batches") as caught:
        packaged(changes={"accuracy__batch_dependent": True}, cache=store)
    assert caught.value.hint == "mlpack package tiny-mlp@1 --runtime fastapi --cache none"


def test_a_size_without_a_cache_in_memory_is_refused(packaged):
    with pytest.raises(UsageError, match="--cache is none"):
        packaged(cache_mb=10)


@contextlib.contextmanager
def redis_server(port):
    """A real one, which keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    import redis

    client = redis.Redis(port=port)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.ConnectionError):
                if client.ping():
                    break
            time.sleep(0.05)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def test_two_servers_share_a_redis_and_survive_it(packaged, serve):
    port = free_port()
    folder = packaged(cache="redis")
    with redis_server(port) as client:
        one, other = (serve(folder, REDIS_URL=f"redis://127.0.0.1:{port}/0") for _ in range(2))
        first = one.ask(INFER, body())
        assert other.ask(INFER, body()) == first
        assert (counted(one)["miss"], counted(other)["hit"]) == (1, 1)
        (key,) = client.keys()
        assert key.startswith(b"mlpack:outputs:")
        assert 0 < client.ttl(key) <= 24 * 3600
        client.set(key, b"\x05\0\0\0[1,2]")
        assert one.ask(INFER, body()) == first
        assert counted(one)["error"] == 1
    # Redis is gone, and with it the answers; theirs go on.
    for turn in range(3):
        assert one.ask(INFER, body(turn + 2.0))[0] == 200
    assert counted(one)["error"] >= 4
    assert run_client(folder, other.url).returncode == 0


def test_a_redis_that_never_was_there_fails_no_request(packaged, serve):
    pytest.importorskip("redis")
    folder = packaged(cache="redis")
    server = serve(folder, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert run_client(folder, server.url).returncode == 0
    assert counted(server) == {"hit": 0, "miss": 0, "error": 12}


def test_a_redis_that_takes_connections_and_says_nothing_is_not_waited_for(packaged, serve):
    pytest.importorskip("redis")
    folder = packaged(cache="redis")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = serve(folder, REDIS_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert run_client(folder, server.url).returncode == 0
        assert counted(server) == {"hit": 0, "miss": 0, "error": 12}


def test_the_server_says_that_it_needs_to_know_where_redis_is(packaged):
    pytest.importorskip("redis")
    folder = packaged(cache="redis")
    assert "redis==" in (folder / "requirements.txt").read_text()
    assert "environment: [REDIS_URL]" in (folder / "compose.yaml").read_text()
    command = [sys.executable, "-I", "-B", "-c", LAUNCH, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PORT": "0"}, timeout=300)
    assert (done.returncode, "set REDIS_URL" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "raw", [b"", b"abc", b"\xff\xff\xff\xff", b"\x02\0\0\0{}", b'\x0e\0\0\0{"y": [1, 3]}xx', b'\x08\0\0\0{"y":"a"}']
)
def test_bytes_that_are_no_outputs_are_not_taken_for_some(raw):
    store_module = pytest.importorskip("mlpack.runtimes.templates.fastapi.server.redis_store")
    store = store_module.RedisStore("redis://127.0.0.1:1/0", described(Tensor("x", "FP32", ("batch", 2))))
    with pytest.raises(Unavailable):
        store._unpacked(raw)


def test_outputs_survive_being_packed():
    store_module = pytest.importorskip("mlpack.runtimes.templates.fastapi.server.redis_store")
    store = store_module.RedisStore("redis://127.0.0.1:1/0", described(Tensor("x", "FP32", ("batch", 2))))
    outputs = {"y": np.array([[np.nan, -0.0, 3e38]], np.float32), "z": np.array([2**63 - 1])}
    back = store._unpacked(store._packed(outputs))
    assert all(back[name].tobytes() == array.tobytes() for name, array in outputs.items())
    assert json.dumps({name: str(array.dtype) for name, array in back.items()}) == '{"y": "float32", "z": "int64"}'
