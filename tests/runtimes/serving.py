"""Starts packaged servers for real, in a process where neither mlpack nor torch can be imported."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from raw_artifacts import RAW_KINDS, make_raw
from tiny_artifacts import make

from mlpack.api.package import package

if TYPE_CHECKING:
    from pathlib import Path

LAUNCH = (
    "import sys, runpy; sys.modules['mlpack'] = None; sys.modules['torch'] = None; "
    "sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('server', run_name='__main__', alter_sys=True)"
)
START_SECONDS = 300


@dataclass
class Running:
    """A server process, the folder it serves and its address."""

    process: subprocess.Popen
    package: Path
    url: str

    def ask(self, path: str, body: object = None, kind: str = "application/json") -> tuple[int, object]:
        """Status and JSON answer."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", raw, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name with labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=300) as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection(self.address[0], self.address[1], timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


def started_here() -> set[int]:
    """The processes that this one has started and that still run; what other tests left to be reaped aside."""
    return {
        each.pid for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE
    }  # fmt: skip


@pytest.fixture
def nothing_left():
    """After the test no process runs that did not run before."""
    before = started_here()
    yield
    assert started_here() <= before


@pytest.fixture
def packaged(tmp_path):
    """Make an artifact and its package: `packaged("mlp", "fastapi", changes, **options)`."""

    def build(kind: str = "mlp", runtime: str = "fastapi", changes: dict | None = None, **options: object) -> Path:
        return built_package(tmp_path, kind, runtime, changes, **options)

    return build


def built_package(
    place: Path, kind: str = "mlp", runtime: str = "fastapi", changes: dict | None = None, **options: object
) -> Path:
    """The folder of a package of an artifact that is made for it."""
    (make_raw if kind in RAW_KINDS else make)(place / "store", kind, **(changes or {}))
    return package(
        f"tiny-{kind}", runtime=runtime, store=place / "store", out=place / f"package-{kind}", **options
    ).path


@pytest.fixture
def serve():
    """Start the server of a package; it is ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, **environment: str) -> Running:
            return stack.enter_context(serving(folder, **environment))

        yield start


def serving(folder: Path, **environment: str) -> contextlib.AbstractContextManager[Running]:
    """The server of a package, where neither mlpack nor torch can be imported."""
    return started([sys.executable, "-I", "-B", "-c", LAUNCH, str(folder)], folder, environment)


@contextlib.contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str]):
    """A server process that is ready, in a process group of its own."""
    port = free_port()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PORT": str(port), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    running = Running(process, folder, f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            with contextlib.suppress(OSError):
                if running.ask("/v2/health/ready")[0] == 200:
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("the server did not get ready")
        yield running
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_client(folder: Path, url: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    """Run the package's client.py."""
    return subprocess.run(
        [python, "-B", folder / "client.py", url], capture_output=True, text=True, timeout=300, check=False
    )


def replace(folder: Path, relative: str, content: str | bytes) -> None:
    """Another file in a package, and its sha256 in the package's list: what a maker of packages could do wrong."""
    raw = content.encode() if isinstance(content, str) else content
    (folder / relative).write_bytes(raw)
    record = json.loads((folder / "mlpack-package.json").read_text())
    record["files"][relative] = hashlib.sha256(raw).hexdigest()
    (folder / "mlpack-package.json").write_text(json.dumps(record))


def alter_outputs(folder: Path, name: str, row: int, by: float) -> None:
    """Other golden outputs, as if they had been recorded so."""
    with np.load(folder / "golden" / "outputs.npz") as arrays:
        outputs = dict(arrays)
    outputs[name][row] += by
    stream = io.BytesIO()
    np.savez(stream, **outputs)
    replace(folder, "golden/outputs.npz", stream.getvalue())
