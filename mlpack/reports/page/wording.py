"""How numbers read on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOTHING = "–"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SMALLEST = 1e-4
_MINUTE = 60


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and a true minus; a dash for None."""
    if value is None or not math.isfinite(value):
        return _NOTHING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    text = f"{value:.{digits - 1}e}" if abs(value) < _SMALLEST else f"{value:,.{max(0, digits - 1 - magnitude)}f}"
    return text.replace("-", "−")


def score(value: float | None, *, percent: bool) -> str:
    """A metric's value; right/wrong metrics in percent."""
    if value is None:
        return _NOTHING
    return f"{number(value * 100, 4)}%" if percent else number(value, 4)


def points(value: float, *, percent: bool) -> str:
    """A difference in the metric's unit without naming it: points with two digits for right/wrong metrics."""
    if not percent:
        return number(value)
    hundredths = f"{value * 100:.2f}"
    return number(value * 100, 2) if value and not float(hundredths) else hundredths.replace("-", "−")


def drop(value: float | None, *, percent: bool) -> str:
    """A drop in the metric's unit."""
    return _NOTHING if value is None else points(value, percent=percent) + (" pt" if percent else "")


def drop_interval(bounds: Sequence[float] | None, *, percent: bool) -> str:
    """The interval of a drop: `−0.24 to 0.38`."""
    return _NOTHING if bounds is None else " to ".join(points(bound, percent=percent) for bound in bounds)


def interval(bounds: Sequence[float] | None) -> str:
    """`2.20 to 4.50`; a dash for None."""
    return _NOTHING if bounds is None else " to ".join(map(number, bounds))


def size(size_bytes: float | None) -> str:
    """Bytes in the largest unit that keeps a digit before the point; units of 1000."""
    from jinja2.filters import do_filesizeformat

    return _NOTHING if size_bytes is None else do_filesizeformat(size_bytes)


def share(value: float) -> str:
    """A share in percent, with a digit behind the point where it would read as nothing or all."""
    percent = value * 100
    return f"{percent:.0f}%" if 1 <= percent <= 99 or percent in {0, 100} else f"{percent:.1f}%"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """`8.2 s`, `3 min 5 s`."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes} min {rest} s"


def plain(value: Any) -> str:
    """A value of an option or of a report as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        between = "; " if any(isinstance(each, Mapping) for each in value) else ", "
        return between.join(plain(each) for each in value)
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return f"{value[:12]}…"
    return _NOTHING if value is None else str(value)
