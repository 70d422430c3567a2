"""Keeps the server running: `python -m server.supervisor` starts it as a process of its own, and again when that dies.

It holds the listening socket, so that who connects meanwhile waits instead of being refused. Requests that a worker
had when it was killed are lost; that nothing else is, is the point.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from .environment import LINK_FD, LISTEN_FD, ONLY_FALLBACK, BadSetting, PortTaken, listen

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = Path(__file__).resolve().parent.parent
# More deaths than these in a minute, and it is for who watches this process to decide.
MOST_DEATHS = 5
WITHIN_SECONDS = 60
# A model that kills the process twice while it is opened will do it again.
MOST_EARLY_DEATHS = 2
PAUSE_SECONDS = 0.2


class Supervisor:
    """One worker at a time."""

    def __init__(self, listening: socket.socket, *, has_fallback: bool) -> None:
        self._listening = listening
        self._has_fallback = has_fallback
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Until a signal comes, or the worker refuses to start; the exit code."""
        deaths: deque[float] = deque(maxlen=MOST_DEATHS + 1)
        early = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._is_stopping():
            code, was_ready = self._one_life(only_fallback=self._has_fallback and early >= MOST_EARLY_DEATHS)
            if self._is_stopping():
                break
            # It ended by itself, and has said why.
            if code > 1:
                return code
            early = 0 if was_ready else early + 1
            deaths.append(time.monotonic())
            if len(deaths) > MOST_DEATHS and deaths[-1] - deaths[0] < WITHIN_SECONDS:
                _say(f"error: the server died {len(deaths)} times within {WITHIN_SECONDS} s, the last time of {code}")
                return 1
            _say(f"warning: the server died of {code} and is started again")
            time.sleep(PAUSE_SECONDS)
        return 0

    def _one_life(self, *, only_fallback: bool) -> tuple[int, bool]:
        """The exit code of one worker, and whether it ever was ready."""
        mine, its = socket.socketpair()
        fds = {LISTEN_FD: self._listening.fileno(), LINK_FD: its.fileno()}
        environment = {**os.environ, **{name: str(fd) for name, fd in fds.items()}}
        if only_fallback:
            environment[ONLY_FALLBACK] = "1"
        # -B: a package stays as it was packaged.
        command = [sys.executable, "-B", "-m", "server"]
        with mine:
            self._worker = subprocess.Popen(command, cwd=PACKAGE, env=environment, pass_fds=tuple(fds.values()))
            its.close()
            # The signal may have come before there was anybody to pass it on to.
            if self._is_stopping():
                self._end()
            code = self._worker.wait()
            self._worker = None
            mine.setblocking(False)
            try:
                return code, bool(mine.recv(16))
            except BlockingIOError:
                return code, False

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._end()

    def _is_stopping(self) -> bool:
        # Asked each time: a signal changes it between two lines.
        return self._stopping

    def _end(self) -> None:
        """End the worker; nobody may wait in a line that is not served any more."""
        if self._worker:
            self._listening.close()
            self._worker.terminate()


def main() -> int:
    """Listen and supervise; the exit code is the worker's where that refuses to start, 3 where the port is taken."""
    try:
        listening = listen()
    except BadSetting as error:
        _say(f"error: {error}")
        return 2
    except PortTaken as error:
        _say(f"error: {error}")
        return 3
    try:
        has_fallback = "fallback" in json.loads((PACKAGE / "model.json").read_text())
    except (OSError, ValueError):
        # The worker knows how to say this.
        has_fallback = False
    return Supervisor(listening, has_fallback=has_fallback).run()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
