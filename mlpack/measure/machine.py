"""The machine that is measured on: its threads, its name, its rest, and the lock that timings hold."""

from __future__ import annotations

import os
import platform
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_POLL_SECONDS = 0.05
# CPU time is counted in ticks of 10 ms: two of them in a poll may be rounding, a spinning thread gives five.
_STILL_SECONDS = 0.021
_QUIET_POLLS = 2


def machine_fingerprint() -> dict[str, Any]:
    """What a timing depends on and a reader wants to know: cpu, cores, memory in GB, os, python."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "Processor"} and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def wait_until_idle(pids: Sequence[int], limit_s: float = 2.0) -> bool:
    """Wait until these processes' CPU time stands still; False where it still ran after `limit_s`.

    Runtimes let their threads spin for a while after a call, which would slow the next contender. A
    process that has ended is idle.
    """
    end = time.monotonic() + limit_s
    before, quiet = _cpu_seconds(pids), 0
    while quiet < _QUIET_POLLS:
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_SECONDS)
        now = _cpu_seconds(pids)
        moved = any(now[pid] - before.get(pid, 0.0) > _STILL_SECONDS for pid in now)
        quiet, before = (0 if moved else quiet + 1), now
    return True


def _cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    import psutil

    seconds = {}
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[pid] = times.user + times.system
    return seconds


@contextmanager
def timing_lock(path: Path | None = None, limit_s: float = -1) -> Iterator[None]:
    """Hold the machine-wide lock that every timing holds.

    Within one process and thread it may be taken again. The default is a file in the user's cache folder.
    Waits for `limit_s` seconds, with -1 for as long as it takes.

    Raises:
        MachineError: the lock is still held by another process, or its file cannot be made.
    """
    import filelock
    import platformdirs

    path = path or Path(platformdirs.user_cache_dir("mlpack")) / "timing.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=limit_s, is_singleton=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise MachineError(f"another mlpack is timing on this machine (lock {path})", "wait for it to end") from error
    except OSError as error:
        raise MachineError(f"cannot lock {path}: {error.strerror}", "make the user cache folder writable") from error
    try:
        yield
    finally:
        lock.release()


def peak_rss_bytes() -> int:
    """The most memory that this process has held.

    Linux's own counter of this program image: getrusage's also counts what the parent held when it started
    us.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
