"""How much memory this process may really use, and how soon it gives back what it no longer uses."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.threads import upwards

if TYPE_CHECKING:
    from collections.abc import Iterator

# mallopt(3): M_MMAP_THRESHOLD, and what is large enough for memory of its own.
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20


def usable_memory_bytes() -> int:
    """Of the machine or, if less, what the control groups allow."""
    import psutil

    total, limit = int(psutil.virtual_memory().total), cgroup_memory()
    return total if limit is None else min(total, limit)


def give_back_at_once() -> None:
    """From now on what a large array took goes back to the system when the array is gone.

    By itself glibc raises the size from which it does so up to 32 MiB, and what lies between smaller things stays: over
    16 layers, one in memory at a time, 300 MB did. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def cgroup_memory(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this control group and those around it allow, the tightest; None without a limit."""
    if not membership.is_file():
        return None
    files = _limits(membership.read_text(encoding="utf-8").splitlines(), mount)
    told = (file.read_text(encoding="utf-8").strip() for file in files if file.is_file())
    # "max" is no limit; of the first version of control groups a number beyond all memory is.
    return min((int(each) for each in told if each.isdigit()), default=None)


def _limits(lines: list[str], mount: Path) -> Iterator[Path]:
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield from (folder / "memory.max" for folder in upwards(mount, group))
        elif "memory" in controllers.split(","):
            yield from (folder / "memory.limit_in_bytes" for folder in upwards(mount / "memory", group))
