"""How much of the machine was taken away while something was measured: by other guests, and by other processes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_STAT = Path("/proc/stat")
_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_BUSY = ("user", "nice", "system", "irq", "softirq")
# Ticks are counted by sampling: a few of them say nothing.
_FEWEST_TICKS = 3
_NOTICED = 0.05
_DRIFTED = 0.10


@dataclass(frozen=True)
class Disturbance:
    """Shares, 0 to 1, of the CPU time that a measured process could have had on the CPUs it may use.

    `steal` went to other guests of the same computer (virtual machines), `others` to other processes of this system.
    """

    steal: float
    others: float

    @property
    def share(self) -> float:
        """What was taken away in all."""
        return self.steal + self.others

    @property
    def noticed(self) -> bool:
        """Whether a timing has to be taken again: more than 5% was taken away."""
        return self.share > _NOTICED


class Watch:
    """Counts from its making on; `read` says what was taken since. Linux only: elsewhere nothing is seen.

    Source of the counters: proc_stat(5); `steal` is time in which a virtual CPU was ready and did not run.
    """

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._before = self._now()

    def read(self) -> Disturbance | None:
        """What was taken since this watch was made; None where the system does not tell."""
        if self._before is None or (now := self._now()) is None:
            return None
        busy, steal, own, wall = (after - before for after, before in zip(now, self._before, strict=True))
        most = wall * _cpus()
        if most <= 0:
            return None
        return Disturbance(steal=_share(steal, most), others=_share(busy - own, most))

    def _now(self) -> tuple[float, float, float, float] | None:
        """Busy and stolen seconds of the CPUs that this process may use, its own CPU seconds, the clock."""
        try:
            lines = self._stat.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        busy = steal = 0.0
        for line in lines:
            name, *values = line.split()
            if name in mine:
                ticks = dict(zip(_FIELDS, map(int, values), strict=False))
                busy += sum(ticks[field] for field in _BUSY)
                steal += ticks.get("steal", 0)
        per_second = os.sysconf("SC_CLK_TCK")
        return busy / per_second, steal / per_second, time.process_time(), time.perf_counter()


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _share(seconds: float, most: float) -> float:
    """The share, 0 where it is less than the ticks can tell."""
    if seconds * os.sysconf("SC_CLK_TCK") < _FEWEST_TICKS:
        return 0.0
    return min(1.0, seconds / most)


def notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader of these timings has to know, a line each; `metrics` are those of profile_latency."""
    told = []
    if metrics["disturbed"]:
        told.append(
            f"{_blocks(metrics['disturbed'])} disturbed at every try: {' and '.join(_takers(metrics))} of the CPU time"
        )
    elif metrics["repeated"]:
        told.append(f"{_blocks(metrics['repeated'])} taken again: other work disturbed the first try")
    if metrics["unsteady"]:
        told.append(f"{_blocks(metrics['unsteady'])} never steady: calls did not settle to within 10%")
    for contender, count in metrics["crashed"].items():
        told.append(f"{contender}: {crashes(count)}")
    if abs(metrics["drift"]) > _DRIFTED:
        how = "slower" if metrics["drift"] > 0 else "faster"
        told.append(f"the machine became {abs(metrics['drift']):.0%} {how} meanwhile; turns cancel that out of speeds")
    if metrics["clocks_moved"]:
        told.append(f"the clock changed by more than 5% within {_times(metrics['clocks_moved'])}")
    if metrics["slowed"]:
        told.append(f"the card ran below its clocks: {', '.join(metrics['slowed'])}")
    return tuple(told)


def crashes(count: int) -> str:
    """What is said of launches that a native library ended, and that were repeated."""
    launches = "1 launch" if count == 1 else f"{count} launches"
    return f"a native library ended {launches}, repeated since: a server may end so too"


def _times(count: int) -> str:
    return "1 timing" if count == 1 else f"{count} timings"


def _takers(metrics: Mapping[str, Any]) -> list[str]:
    whose = {"steal": "other guests of this computer", "others": "other processes"}
    return [f"{who} took up to {metrics[name]:.0%}" for name, who in whose.items() if metrics[name] > 0]


def _blocks(count: int) -> str:
    return "1 timing was" if count == 1 else f"{count} timings were"
