"""The supervisor: a server that is killed comes back, one that refuses to start does not, and no port is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from serving import free_port, run_client, started

import mlpack.runtimes

COMMAND = [sys.executable, "-B", "-m", "server.supervisor"]
SERVER = Path(mlpack.runtimes.__file__).parent / "templates" / "fastapi" / "server"
ANSWERED = 'inference_requests_total{status="200"}'
INFER = "/v2/models/tiny-mlp/infer"
BODY = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}]}


def worker(server):
    (child,) = psutil.Process(server.process.pid).children()
    return child


def supervised(folder, **environment):
    return started(COMMAND, folder, environment)


def test_a_worker_that_is_killed_comes_back_and_who_waits_is_answered(packaged):
    folder = packaged()
    with supervised(folder) as server, ThreadPoolExecutor(4) as pool:
        first = worker(server).pid
        for turn in range(2):
            os.kill(worker(server).pid, signal.SIGKILL)
            # Sent while nobody is there to take them: the socket is held, so they wait.
            asked = [pool.submit(server.ask, INFER, BODY) for _ in range(4)]
            assert [each.result()[0] for each in asked] == [200] * 4, turn
        assert worker(server).pid != first
        assert run_client(folder, server.url).returncode == 0


def test_sigterm_ends_both_and_answers_what_was_accepted(packaged):
    folder = packaged("slow", max_batch=1)
    request = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 700], "data": [1.0] * 700}]}
    with supervised(folder) as server, ThreadPoolExecutor(10) as pool:
        child = worker(server)
        asked = [pool.submit(server.ask, "/v2/models/tiny-slow/infer", request) for _ in range(10)]
        # One request runs; what neither waits nor is answered may not have arrived, and would be refused.
        while (found := server.metrics())["inference_queue_depth"] + found.get(ANSWERED, 0) < 9:
            pass
        assert found["inference_queue_depth"] >= 1, "nothing was waiting: the test shows nothing"
        server.process.send_signal(signal.SIGTERM)
        assert [each.result()[0] for each in asked] == [200] * 10
        assert server.process.wait(60) == 0
        assert not child.is_running()
        with pytest.raises(OSError), socket.create_connection(server.address, timeout=5):  # noqa: PT011
            pass


def test_a_worker_that_is_left_alone_ends_and_frees_the_port(packaged):
    with supervised(packaged()) as server:
        child = worker(server)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        child.wait(60)
        with socket.create_server(server.address):
            pass


def test_what_refuses_to_start_is_not_started_again(packaged):
    folder = packaged()
    (folder / "model.json").write_bytes(b"{}")
    done = subprocess.run(COMMAND, cwd=folder, env={"PORT": str(free_port())}, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip
    assert done.returncode == 5
    assert done.stderr.startswith("error: model.json was altered")


def test_a_port_that_is_taken_or_none_is_said(packaged):
    folder = packaged()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for value, code, said in (
            (str(port), 3, f"cannot listen on 127.0.0.1:{port}"),
            ("http", 2, "PORT=http is not"),
        ):
            done = subprocess.run(COMMAND, cwd=folder, env={"PORT": value}, capture_output=True, text=True,
                                  check=False, timeout=300)  # fmt: skip
            assert (done.returncode, said in done.stderr) == (code, True)


def dying(folder, code):
    """The real supervisor over a worker that is a few lines, since no model can be had that kills its process."""
    (folder / "server").mkdir(parents=True)
    for name in ("__init__.py", "supervisor.py", "environment.py"):
        shutil.copy(SERVER / name, folder / "server" / name)
    (folder / "server" / "__main__.py").write_text(f"import os, signal, sys, time\n{code}")
    return subprocess.Popen(COMMAND, cwd=folder, env={"PORT": str(free_port())}, stderr=subprocess.PIPE, text=True)


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_one_that_dies_again_and_again_is_given_up(tmp_path):
    process = dying(tmp_path / "package", KILL)
    assert process.wait(120) == 1
    told = process.stderr.read()
    process.stderr.close()
    assert told.count("died of -9 and is started again") == 5
    assert told.splitlines()[-1].startswith("error: the server died 6 times within 60 s")


def test_a_model_that_kills_its_process_leaves_the_fallback(tmp_path):
    folder = tmp_path / "package"
    only = "open('only', 'w').close(); time.sleep(300)"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"fallback": {}}))
    process = dying(folder, f"if not os.environ.get('SERVER_ONLY_FALLBACK'):\n    {KILL}\n{only}\n")
    deadline = time.monotonic() + 120
    while not (folder / "only").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (folder / "only").exists()
    process.terminate()
    assert process.wait(60) == 0
    assert process.stderr.read().count("is started again") == 2
    process.stderr.close()
