"""What this process holds in memory, in MB; for workers in any environment, so of Python alone."""

from __future__ import annotations

from pathlib import Path


def held() -> float:
    """Now."""
    return _status("VmRSS")


def peak() -> float:
    """The most so far, of this program alone: getrusage's also counts what the parent held when it started us."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(lines[name].split()[0]) * 1024 / 1e6
