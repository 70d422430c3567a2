"""`mlpack.logs()`: the logs of the last runs of the command line."""

from __future__ import annotations

import os
from pathlib import Path

from mlpack.api.lookup import cache_folder
from mlpack.core.runlog import list_logs
from mlpack.core.words import Frozen
from mlpack.errors import UsageError


class Log(Frozen):
    """One run: its place counted from the newest (1), when and what it was, and how it ended.

    `exit_code` is None while the run goes on, or when it was killed.
    """

    number: int
    started: str
    command: str
    exit_code: int | None
    path: Path


def logs(which: str | None = None) -> tuple[Log, ...]:
    """The runs whose logs are kept, newest first, or one of them by number or file name.

    Raises:
        UsageError: there is no such log.
    """
    others = [entry for entry in list_logs(cache_folder()) if entry.pid != os.getpid()]
    found = tuple(
        Log(
            number=number,
            started=entry.started.isoformat(),
            command=entry.command,
            exit_code=entry.exit_code,
            path=entry.path,
        )
        for number, entry in enumerate(others, start=1)
    )
    if which is None:
        return found
    chosen = tuple(log for log in found if which in {str(log.number), log.path.name, str(log.path)})
    if not chosen:
        raise UsageError(f"there is no log {which!r}", "mlpack logs lists those that are kept")
    return chosen
