"""The log file that every run writes: what was asked, with which versions, what was said, what failed."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlpack.core.filesystem import alive, make_folder, refused_by_machine

if TYPE_CHECKING:
    from pathlib import Path

KEPT_FILES = 100
KEPT_DAYS = 30
_NAME = re.compile(r"^(?P<at>\d{8}T\d{6})-(?P<command>[a-z-]+)-(?P<pid>\d+)\.log$")
_EXIT = re.compile(r"^\S+ exit (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class LogFile:
    """One run's log. `exit_code` is None while the run goes on, or when it was killed."""

    path: Path
    started: datetime
    command: str
    pid: int
    exit_code: int | None


class RunLog:
    """An open log file; each line has the time of day, a word for its kind, and text."""

    def __init__(self, cache: Path, command: str) -> None:
        """Open `<cache>/logs/<time>-<command>-<pid>.log`, after sweeping old logs.

        Raises:
            MachineError: the cache folder cannot be written.
        """
        self.path = new_log(cache / "logs", command)
        with refused_by_machine(self.path):
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def write(self, kind: str, text: str) -> None:
        """Add one entry; further lines of the text are indented. A full disk loses the entry, not the run."""
        at = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        with suppress(OSError):
            self._file.write(f"{at} {kind} " + text.rstrip("\n").replace("\n", "\n    ") + "\n")

    def close(self, exit_code: int) -> None:
        """Write the exit code as the last line."""
        self.write("exit", str(exit_code))
        with suppress(OSError):
            self._file.close()


def new_log(folder: Path, command: str) -> Path:
    """Where a log may be written in this folder, after old ones were swept.

    Raises:
        MachineError: the folder cannot be written.
    """
    make_folder(folder)
    with refused_by_machine(folder):
        sweep_logs(folder)
    return folder / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}-{command}-{os.getpid()}.log"


def list_logs(cache: Path) -> list[LogFile]:
    """The log files that are there, newest first."""
    return [_described(path, match) for path, match in _entries(cache / "logs")]


def sweep_logs(folder: Path) -> None:
    """Remove logs older than 30 days and all but the newest 100; those of living processes stay."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for position, (path, match) in enumerate(_entries(folder)):
        with suppress(FileNotFoundError):
            is_old = position >= KEPT_FILES - 1 or path.stat().st_mtime < oldest
            if is_old and not alive(int(match["pid"])):
                path.unlink()


def _entries(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    if not folder.is_dir():
        return []
    found = [(path, match) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return sorted(found, key=lambda entry: entry[0].name, reverse=True)


def _described(path: Path, match: re.Match[str]) -> LogFile:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 200))
        ends = _EXIT.findall(file.read().decode(errors="replace"))
    return LogFile(
        path=path,
        started=datetime.strptime(match["at"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        command=match["command"],
        pid=int(match["pid"]),
        exit_code=int(ends[-1]) if ends else None,
    )
