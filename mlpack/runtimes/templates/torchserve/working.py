"""A lock that a worker holds while it answers, for who waits to end the server: a process that dies gives it back."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

BUSY = "BUSY_FOLDER"


class Working:
    """Held inside `with`. Where nobody waits for it, it is none."""

    def __init__(self) -> None:
        folder = os.environ.get(BUSY)
        self._file = (Path(folder) / str(os.getpid())).open("wb") if folder else None

    def __enter__(self) -> None:
        if self._file:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._file:
            fcntl.flock(self._file, fcntl.LOCK_UN)
