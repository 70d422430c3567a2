"""When the requests of an open loop are due."""

from __future__ import annotations

import numpy as np


def poisson_times(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Seconds [n], ascending, inside [0, seconds): independent users who send `rate` requests per second in all.

    Gaps are exponential. The same seed gives the same times, so that two servers can be asked alike.
    """
    generator = np.random.default_rng(seed)
    times = np.empty(0)
    while not len(times) or times[-1] < seconds:
        start = times[-1] if len(times) else 0.0
        gaps = generator.exponential(1 / rate, max(16, int((seconds - start) * rate * 1.1)))
        times = np.concatenate([times, start + np.cumsum(gaps)])
    return times[times < seconds]
