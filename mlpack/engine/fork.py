"""A child as a fork of a process that has imported already what it needs: importing torch takes seconds each time."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from mlpack.engine.program import Ended, kill_group

START = "start.json"
FIT = b"fit"


class Forked:
    """A fork. Its supervisor tells its process id, then how it ended."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self._status = os.fdopen(status)
        self._ended: Ended | None = None

    def go_on(self) -> None:
        """It waits for nothing: its standard input is empty."""

    def wait(self) -> Ended:
        """Wait for its end; one whose supervisor died is one that was killed."""
        told = self._status.readline().split()
        self._ended = Ended(int(told[0]), int(told[1])) if told else Ended(-signal.SIGKILL, 0)
        return self._ended

    def kill(self) -> None:
        """Kill its process group, if it still runs."""
        if self._status.closed:
            return
        if self._ended is None:
            kill_group(self.pid)
            self.wait()
        self._status.close()


class _Server:
    """The process that forks (forkserver.py): it has imported these modules and does nothing else."""

    def __init__(self, imports: tuple[str, ...]) -> None:
        self.owner = os.getpid()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlpack.engine.forkserver", str(theirs.fileno()), *imports],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={
                    **os.environ,
                    # A pool of threads would not live on in a fork; the fork sets its own size.
                    "OPENBLAS_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
            )
        self.fit = self._channel.recv(len(FIT)) == FIT
        if not self.fit:
            self.close()

    def fork(self, folder: Path, say: int, output: int) -> Forked | None:
        """A fork that runs the job in this folder; None where the server has ended."""
        reader, writer = os.pipe()
        try:
            socket.send_fds(self._channel, [str(folder).encode()], [say, output, writer])
        except OSError:
            os.close(reader)
            return None
        finally:
            os.close(writer)
        told = b""
        while not told.endswith(b"\n"):
            piece = os.read(reader, 1)
            if not piece:
                os.close(reader)
                return None
            told += piece
        return Forked(int(told), reader)

    def close(self) -> None:
        """End it, even while it imports."""
        self._channel.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()


_servers: dict[tuple[str, ...], _Server] = {}
_one_at_a_time = threading.Lock()


@atexit.register
def end_servers() -> None:
    """End the processes that are forked from, and with them what they forked."""
    while _servers:
        _servers.popitem()[1].close()


def fork(imports: tuple[str, ...], folder: Path, say: int, output: int, environment: dict[str, str]) -> Forked | None:
    """Run the job in this folder in a fork of a process that has imported these modules.

    None where there is none to fork from: elsewhere than on Linux, and where one of the modules starts threads
    as it is imported, which would be missing in a fork.
    """
    if sys.platform != "linux":
        return None
    start = {"environment": environment, "path": sys.path, "folder": str(Path.cwd())}
    (folder / START).write_text(json.dumps(start))
    with _one_at_a_time:
        return _forked(imports, folder, say, output)


def _forked(imports: tuple[str, ...], folder: Path, say: int, output: int) -> Forked | None:
    if imports not in _servers and imports:
        imports = next((more for more, each in _servers.items() if each.fit and set(imports) <= set(more)), imports)
    server = _servers.get(imports)
    if server is not None and server.owner == os.getpid():
        forked = server.fork(folder, say, output) if server.fit else None
        if forked is not None or not server.fit:
            return forked
        server.close()
    server = _servers[imports] = _Server(imports)
    return server.fork(folder, say, output) if server.fit else None
