"""What this machine is: its CPU, the threads that this process may really use, its NVIDIA devices."""

from __future__ import annotations

import functools
import math
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Instruction sets that decide which numerics run here, and how fast.
DECISIVE_ISA = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class Device:
    """One NVIDIA device as its driver names it; memory in MiB."""

    name: str
    memory_mib: int | None
    compute_capability: str | None


def usable_threads() -> int:
    """The CPUs that this process may really use: affinity and the cgroup's quota, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def _cgroup_quota() -> float | None:
    """CPUs allowed by the tightest cgroup (v2, then v1) above this process; None: no limit."""
    limits: list[float] = []
    with suppress(OSError, StopIteration):
        relative = next(
            line.split("::", 1)[1].strip()
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
        here = Path("/sys/fs/cgroup") / relative.lstrip("/")
        for folder in (here, *here.parents):
            with suppress(OSError, ValueError):
                quota, period = (folder / "cpu.max").read_text().split()
                limits.append(float(quota) / float(period))
            if folder == Path("/sys/fs/cgroup"):
                break
    with suppress(OSError, ValueError):
        first = Path("/sys/fs/cgroup/cpu")
        quota_us = float((first / "cpu.cfs_quota_us").read_text())
        if quota_us > 0:
            limits.append(quota_us / float((first / "cpu.cfs_period_us").read_text()))
    return min(limits) if limits else None


def cpu_name() -> str:
    """The CPU's name as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def cpu_features() -> frozenset[str]:
    """The instruction sets that this CPU tells of, under archspec's spelling."""
    from archspec.cpu import detect

    return frozenset(detect.detected_info().features)


@functools.cache
def cpu_microarchitecture() -> str:
    """The microarchitecture's name by archspec, such as `zen4`."""
    import archspec.cpu

    return str(archspec.cpu.host().name)


def isa() -> tuple[str, ...]:
    """The decisive instruction sets of this CPU."""
    return tuple(name for name in DECISIVE_ISA if name in cpu_features())


@functools.cache
def nvidia_devices() -> tuple[Device, ...]:
    """The NVIDIA devices that the driver shows; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if told.returncode != 0:
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in told.stdout.splitlines()]
    return tuple(
        Device(name, int(memory) if memory.isdigit() else None, capability or None)
        for name, memory, capability in (row for row in rows if len(row) == 3)  # noqa: PLR2004 - as queried
    )
