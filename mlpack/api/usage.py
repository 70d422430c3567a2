"""What a contender takes beside time: memory, and what the sensors of its device tell."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from mlpack.core.summary import Grid
from mlpack.core.wording import number, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Usage:
    """Of one contender, None where there is no sensor.

    `peak_rss_bytes` is that of a process that loads and runs it, the median over launches. `device_ms` is one run at
    the first batch size by the device's own clock, beside the wall time of its P50. The rest was read at the end of
    the last launch: `watts`, `celsius`, `clock_mhz`, `utilization` (percent), and the memory in use on the card,
    `device_bytes`.
    """

    peak_rss_bytes: int
    device_ms: float | None = None
    watts: float | None = None
    celsius: float | None = None
    clock_mhz: float | None = None
    utilization: float | None = None
    device_bytes: int | None = None


def usage_of(metrics: Mapping[str, Any], key: str) -> Usage:
    """That of the contender `key` in the report of profile_latency."""
    told = metrics["telemetry"][key]
    clock = told["clock_mhz"]
    return Usage(
        peak_rss_bytes=int(median(metrics["peak_rss_bytes"][key])),
        device_ms=metrics["device_ms"].get(key),
        watts=told["watts"],
        celsius=told["celsius"],
        clock_mhz=None if clock is None else clock[1],
        utilization=told["utilization"],
        device_bytes=told["memory_bytes"],
    )


def _digits(digits: int) -> Callable[[float], str]:
    return lambda value: number(value, digits)


_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("peak RSS", "peak_rss_bytes", size),
    ("device ms", "device_ms", _digits(3)),
    ("W", "watts", _digits(3)),
    ("°C", "celsius", _digits(2)),
    ("MHz", "clock_mhz", _digits(4)),
    ("busy %", "utilization", _digits(3)),
    ("on device", "device_bytes", size),
)


def usage_grid(named: Sequence[tuple[str, str, Usage]]) -> Grid:
    """A row for each contender, by its name and what it runs as; columns that no sensor fills are left out."""
    shown = [each for each in _COLUMNS if any(getattr(used, each[1]) is not None for _, _, used in named)]
    rows = [(label, runs_as, *(_cell(getattr(used, name), told) for _, name, told in shown))
            for label, runs_as, used in named]  # fmt: skip
    titles = tuple(title for title, _, _ in shown)
    return Grid(("model", "runs as", *titles), rows, right=titles)


def _cell(value: Any, told: Callable[[Any], str]) -> str:
    return "–" if value is None else told(value)
