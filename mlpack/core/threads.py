"""How many CPUs this process may really use: its affinity and its control groups' quota."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def usable_threads() -> int:
    """CPUs that this process may use: its affinity or, if less, the cgroup quota rounded down; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cgroup_quota(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that this control group and those around it allow, the tightest; None without a quota."""
    if not membership.is_file():
        return None
    quotas: list[float] = []
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            for folder in upwards(mount, group):
                quotas += _quota_of(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for root in (mount / "cpu", mount / controllers):
                for folder in upwards(root, group):
                    period = _words(folder / "cpu.cfs_period_us")
                    quotas += _quota_of(_words(folder / "cpu.cfs_quota_us") + period)
    return min(quotas, default=None)


def upwards(root: Path, group: str) -> Iterator[Path]:
    """The group's folder and those around it, up to the mount; containers may see only the last ones."""
    folder = root / group.lstrip("/")
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _words(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def _quota_of(words: list[str]) -> list[float]:
    match words:
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            return [int(quota) / int(period)]
        case _:
            return []  # no such files, "max", or -1: no quota
