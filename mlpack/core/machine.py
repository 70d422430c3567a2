"""What this machine is: its CPU, the threads that this process may really use, its NVIDIA devices."""

from __future__ import annotations

import functools
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


NO_CPP_COMPILER = "there is no C++ compiler, which compiling for a CPU needs", "apt-get install g++"
"""Message and hint where one is needed."""


def cpp_compiler() -> str | None:
    """The path of the C++ compiler: what the variable CXX names, else g++ (macOS: clang++). None: it is not there."""
    usual = "clang++" if platform.system() == "Darwin" else "g++"
    return shutil.which(os.environ.get("CXX") or usual)


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
