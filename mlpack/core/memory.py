"""How much memory this process may really use: the machine's, or less by its control groups' limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.threads import upwards

if TYPE_CHECKING:
    from collections.abc import Iterator


def usable_memory_bytes() -> int:
    """Of the machine or, if less, what the control groups allow."""
    import psutil

    total, limit = int(psutil.virtual_memory().total), cgroup_memory()
    return total if limit is None else min(total, limit)


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
