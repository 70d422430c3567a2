"""Times single calls, after they have become steady."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_AGREEMENT = 0.10
_CALLS_PER_WINDOW = 3
_LONGEST_WARMUP = 5


def time_calls(
    call: Callable[[], object], seconds: float, minimum: int = 10, warmup_seconds: float = 0.3
) -> np.ndarray:
    """Milliseconds [n] of each of n >= `minimum` calls made one after the other for about `seconds`.

    `warm_up` runs before, for `warmup_seconds` at least; with 0 the caller has done that.
    """
    if warmup_seconds > 0:
        warm_up(call, warmup_seconds)
    taken: list[int] = []
    stop = time.perf_counter_ns()
    end = stop + int(seconds * 1e9)
    while len(taken) < minimum or stop < end:
        start = time.perf_counter_ns()
        call()
        stop = time.perf_counter_ns()
        taken.append(stop - start)
    return np.array(taken, dtype=np.float64) / 1e6


def warm_up(call: Callable[[], object], seconds: float = 0.3) -> bool:
    """Call until the medians of two windows in a row agree within 10%; False where they never did.

    A window lasts half of `seconds` and has at least 3 calls; the longest warm-up is 5 times `seconds`,
    or two windows where calls are that slow.
    """
    before = _window(call, seconds / 2)
    end = time.perf_counter() + (_LONGEST_WARMUP - 0.5) * seconds
    while True:
        now = _window(call, seconds / 2)
        if abs(now - before) <= _AGREEMENT * max(now, before):
            return True
        if time.perf_counter() >= end:
            return False
        before = now


def _window(call: Callable[[], object], seconds: float) -> float:
    """Median milliseconds of the calls made in this time."""
    return float(np.median(time_calls(call, seconds, _CALLS_PER_WINDOW, warmup_seconds=0)))
