"""When the requests of an open loop are due."""

from __future__ import annotations

import numpy as np


def poisson_times(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Seconds [n], ascending, inside [0, seconds): many independent users who send `rate` requests per second in all.

    A Poisson process, given that exactly n = `rate` × `seconds` requests come: their times are uniform. The rate is
    then the one that was asked for, and the same seed gives the same times, so that two servers are asked alike.

    Source: S. Ross, Introduction to Probability Models, 11th edition (2014), theorem 5.2.
    """
    return np.sort(np.random.default_rng(seed).uniform(0, seconds, round(rate * seconds)))
