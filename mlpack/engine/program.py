"""A child as a new program: `python -m mlpack.engine.child`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (-N: signal N) and the most memory that it held."""

    exit_code: int
    peak_rss_bytes: int


class Started(Protocol):
    """A process that runs one function."""

    pid: int

    def go_on(self) -> None:
        """End the wait of one that reads its standard input."""
        ...

    def wait(self) -> Ended:
        """Wait for its end."""
        ...

    def kill(self) -> None:
        """Kill it, and all that it started, if it still runs."""
        ...


class Program:
    """A new program with memory of its own from the first byte on."""

    def __init__(self, folder: Path, say: int, output: int, environment: dict[str, str]) -> None:
        """Start it; it tells how far it is into the descriptor `say`."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlpack.engine.child", str(folder), str(say), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(say,),
            start_new_session=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self.pid = self._process.pid

    def go_on(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self) -> Ended:
        """Wait for its end."""
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return Ended(self._process.returncode, usage.ru_maxrss * 1024)

    def kill(self) -> None:
        """Kill its process group, if it still runs."""
        if self._process.returncode is None:
            kill_group(self.pid)
            self._process.wait()
        self.go_on()


def kill_group(pid: int) -> None:
    """Kill the process and all that it started, if it still runs."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It has ended, or has not come to lead its group yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
