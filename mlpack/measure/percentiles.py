"""Percentiles with intervals that assume nothing about the distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_TAIL = 0.025


@dataclass(frozen=True)
class Percentile:
    """A percentile of `n` values, its 95% interval; an end is None where no value among them can bound it."""

    value: float
    low: float | None
    high: float | None
    n: int


def percentile(samples: np.ndarray, q: float) -> Percentile:
    """The q-quantile (0 < q < 1) of `samples` [n] with the interval between two of its order statistics.

    The value is an order statistic too (nearest rank), so that it always lies inside its interval. The number of
    values below the true quantile is binomial(n, q); an end is the order statistic that it
    passes with at most 2.5%, so the interval covers at least 95% for any distribution of independent
    values.

    Source: H. David, H. Nagaraja, Order Statistics, 3rd edition (2003), section 7.1.
    """
    from scipy.special import bdtr

    values = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(values)
    if n == 0 or not 0 < q < 1:
        raise ValueError(f"no {q} quantile of {n} values")
    at_most = bdtr(np.arange(n, dtype=np.float64), n, q)
    lower = int(np.count_nonzero(at_most <= _TAIL))
    upper = int(np.count_nonzero(at_most < 1 - _TAIL)) + 1
    return Percentile(
        value=float(np.quantile(values, q, method="inverted_cdf")),
        low=float(values[lower - 1]) if lower >= 1 else None,
        high=float(values[upper - 1]) if upper <= n else None,
        n=n,
    )


def values_needed(q: float) -> int:
    """How many values a q-quantile with an upper end needs: the least n with 1 - q^n >= 0.975 (p99: 368)."""
    return math.ceil(math.log(_TAIL) / math.log(q))
