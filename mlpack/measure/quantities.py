"""Amounts as people write them: `10%`, `20ms`, `25MB`, `+10%`, `1%:20ms`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mlpack.errors import UsageError

_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30,
}  # fmt: skip
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"


@dataclass(frozen=True)
class Ceiling:
    """The most bytes that are allowed: so many, or so large a share more than the baseline's."""

    text: str
    absolute: float | None
    growth: float | None

    def over(self, baseline: float | None) -> float | None:
        """The ceiling in bytes; None where it is relative and the baseline is not known."""
        if self.growth is None:
            return self.absolute
        return None if baseline is None else baseline * (1 + self.growth)


@dataclass(frozen=True)
class Bound:
    """At most this share of requests may take longer than this many ms."""

    text: str
    share: float
    ms: float


def share(text: str, flag: str) -> float:
    """`10%` as 0.1.

    Raises:
        UsageError: anything else.
    """
    found = re.fullmatch(rf"\s*{_NUMBER}\s*%\s*", text, re.ASCII)
    if found is None or not math.isfinite(float(found[1])):
        raise UsageError(f"{flag} {text!r} is no percentage", f"{flag} 10%")
    return float(found[1]) / 100


def milliseconds(text: str, flag: str) -> float:
    """`20ms`, `1.5s` or `800us` in ms.

    Raises:
        UsageError: anything else.
    """
    found = re.fullmatch(rf"\s*{_NUMBER}\s*(us|µs|ms|s)\s*", text)
    if found is None or not 0 < float(found[1]) * _MS[found[2]] < math.inf:
        raise UsageError(f"{flag} {text!r} is no time", f"{flag} 20ms")
    return float(found[1]) * _MS[found[2]]


def ceiling(text: str, flag: str) -> Ceiling:
    """`25MB`, `1.5GiB`, or `+10%` over the baseline.

    Raises:
        UsageError: anything else.
    """
    if text.strip().startswith("+"):
        return Ceiling(text.strip(), None, share(text.strip()[1:], flag))
    found = re.fullmatch(rf"\s*{_NUMBER}\s*([kKmMgG]?(?:[iI])?[bB])\s*", text, re.ASCII)
    unit = found[2].upper() if found else ""
    if found is None or unit not in _BYTES or not math.isfinite(float(found[1]) * _BYTES[unit]):
        raise UsageError(f"{flag} {text!r} is no size", f"{flag} 25MB, or {flag} +10% over the baseline")
    return Ceiling(text.strip(), float(found[1]) * _BYTES[unit], None)


def bound(text: str, flag: str) -> Bound:
    """`1%:20ms`: at most 1% of requests take longer than 20 ms.

    Raises:
        UsageError: anything else.
    """
    left, colon, right = text.partition(":")
    if not colon:
        raise UsageError(f"{flag} {text!r} is not SHARE:TIME", f"{flag} 1%:20ms")
    allowed = share(left, flag)
    if allowed >= 1:
        raise UsageError(f"{flag} {text!r} allows every request", f"{flag} 1%:20ms")
    return Bound(text.strip(), allowed, milliseconds(right, flag))
