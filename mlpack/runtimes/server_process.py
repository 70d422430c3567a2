"""A server as a child process: waited for until it is ready, and ended together with all that it started."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from mlpack.core.runtime import Running
from mlpack.errors import MachineError, StageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

HOST = "127.0.0.1"
# TensorRT builds an engine at its first start, which takes minutes.
_READY_SECONDS = 900.0
# The fastapi package's server takes up to 25 s to answer what it has accepted.
_STOP_SECONDS = 30.0
_STEP_SECONDS = 0.02
_QUESTION_SECONDS = 5.0
_OK = 200
_TOLD_LINES = 3
_LONGEST_LINE = 300
_TELLING = re.compile(r"error|failed|exception|refused|unavailable", re.IGNORECASE)
# Triton's sighs on a machine without a card.
_HARMLESS = re.compile(r"NVML|DCGM")
# Becomes the server, and is told to end when the process that started it is gone, even by SIGKILL.
_TIED = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def running(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    ports: Mapping[str, int],
    log: Path,
    notes: tuple[str, ...] = (),
    ready: Callable[[], bool] | None = None,
) -> Iterator[Running]:
    """A server of the V2 protocol, from when it is ready. `ports` are those it was told, by protocol.

    `ready` asks it in its own way; None: as the protocol has it.

    Raises:
        StageFailed: it ended before it was ready, or did not get ready.
    """
    tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
    start = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            tied,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A group of its own: what it starts is ended with it, and Ctrl-C in a terminal is ours to pass on.
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, ready or partial(_is_ready, ports["http"]), log)
        urls = {scheme: f"{scheme}://{HOST}:{port}" for scheme, port in ports.items()}
        yield Running(urls, time.monotonic() - start, log, process, notes)
    finally:
        _end(process)


def check_alive(server: Running, wait_s: float = 0.0) -> None:
    """Refuse to go on with a server that has ended; `wait_s` is for one whose connections broke a moment ago.

    Raises:
        StageFailed: it has.
    """
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(wait_s)
        raise _ended(server.process, server.log, "while it was asked")


def until_end(server: Running) -> NoReturn:
    """Wait for the end of a server that is not meant to end by itself.

    Raises:
        StageFailed: it has ended.
    """
    server.process.wait()
    raise _ended(server.process, server.log, "by itself")


def free_ports(names: Sequence[str], first: int | None) -> dict[str, int]:
    """A port for each name: `first` and those after it, or any that are free.

    Raises:
        MachineError: one of them is taken, or may not be used.
    """
    if first is None:
        # All are held at once, so that no two are the same.
        probes = [socket.socket() for _ in names]
        try:
            for probe in probes:
                probe.bind((HOST, 0))
            return {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
        finally:
            for probe in probes:
                probe.close()
    ports = {name: first + at for at, name in enumerate(names)}
    for port in ports.values():
        _check_free(port, len(names))
    return ports


def _check_free(port: int, count: int) -> None:
    with socket.socket() as probe:
        # As servers do: the last connections of one that has ended do not keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            needed = f" ({count} in a row are needed)" if count > 1 else ""
            said = error.strerror if isinstance(error, OSError) else "there is no such port"
            raise MachineError(f"port {port} cannot be used{needed}: {said}", "--port 0 takes a free one") from error


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready():
        if process.poll() is not None:
            raise _ended(process, log, "before it was ready")
        if time.monotonic() > deadline:
            raise StageFailed(f"the server was not ready after {_READY_SECONDS:.0f} s{_said(log)}", _show(log))
        time.sleep(_STEP_SECONDS)
    if process.poll() is not None:
        # Another one answered: it took the port a moment before.
        raise _ended(process, log, "before it was ready")


def _is_ready(port: int) -> bool:
    # No urllib: a proxy that the environment names must not answer for the server.
    connection = http.client.HTTPConnection(HOST, port, timeout=_QUESTION_SECONDS)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, time to answer what was accepted, then SIGKILL for all of its group that is left."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ended(process: subprocess.Popen[bytes], log: Path, when: str) -> StageFailed:
    code = process.returncode
    cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return StageFailed(f"the server ended {when} ({cause}){_said(log)}", _show(log))


def _said(log: Path) -> str:
    """The last lines of its log that tell of a failure, else the last lines."""
    lines = [" ".join(line.split()) for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line) and not _HARMLESS.search(line)] or lines
    told = " | ".join(line[:_LONGEST_LINE] for line in telling[-_TOLD_LINES:])
    return f": {told}" if told else ""


def _show(log: Path) -> str:
    return shlex.join(["cat", str(log)])
