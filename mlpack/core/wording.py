"""How numbers and names read on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST, _MOST = 0.01, 1000.0
_LEAST_MS, _MOST_MS = 1e-5, 1e6
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size(size_bytes: float | None) -> str:
    """Bytes in the largest unit that keeps a digit before the point; units of 1000."""
    if size_bytes is None:
        return ""
    for unit, factor in _UNITS:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def number(value: float | None, digits: int = 4) -> str:
    """A number with this many significant digits; nothing for None."""
    return "" if value is None else f"{value:.{digits}g}"


def interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    """`[low, high]`; nothing for None."""
    return "" if bounds is None else f"[{', '.join(number(bound, digits) for bound in bounds)}]"


def milliseconds_interval(bounds: Sequence[float] | None) -> str:
    """`[0.124, 0.131]`; what no call takes, where launches do not agree, is `<1e-05` or `>1e+06`; nothing for None."""
    return "" if bounds is None else f"[{', '.join(map(_milliseconds, bounds))}]"


def _milliseconds(bound: float) -> str:
    if bound < _LEAST_MS:
        return f"<{_LEAST_MS:g}"
    return f">{_MOST_MS:g}" if bound > _MOST_MS else number(bound, 3)


def times(factor: float) -> str:
    """How many times as fast, `2.31`; what two launches of a busy machine cannot tell is `<0.01` or `>1,000`."""
    if factor != factor:  # noqa: PLR0124 - NaN
        return "–"
    if factor < _LEAST:
        return "<0.01"
    return ">1,000" if factor > _MOST else f"{factor:.2f}"


def times_interval(bounds: Sequence[float] | None) -> str:
    """`[2.10, 2.52]`; nothing for None."""
    return "" if bounds is None else f"[{', '.join(map(times, bounds))}]"


def speed(factor: float | None) -> str:
    """`2.31x`; nothing for None."""
    return "" if factor is None else f"{factor:.2f}x"


def count(amount: int, noun: str) -> str:
    """`1 file`, `2 files`, `12,345 samples`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
