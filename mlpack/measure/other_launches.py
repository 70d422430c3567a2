"""The calls of all launches that there could be, told from the few that were run.

A percentile of calls, and a share of slow ones, are those of a server that is started again and again. Few launches
know little of how far launches lie apart, and no order statistic of their calls shows a launch slower than the slowest
seen. Log medians of launches are taken for normal, deviations of calls from their launch's median for what was seen.

Source: Weerahandi, "Generalized Confidence Intervals" (JASA 88, 1993); Krishnamoorthy and Mathew, "Statistical
Tolerance Regions" (2009), chapters 2 and 5. Where calls of a launch are alike it is the normal tolerance bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

# Steps in each of the two unknowns, the launches' mean and deviation, and quantiles kept of calls within launches.
_STEPS = 32
_WITHIN = 128
_HALVINGS = 40
_LEAST_SPREAD = 1e-9


def percentile_of_all(launches: Sequence[np.ndarray], share: float, confidence: float) -> tuple[float, float]:
    """A two-sided interval for the percentile of all calls, ms; of two launches or more."""
    from scipy.special import ndtr

    means, spreads, within = _possible(launches)
    # How far the percentile lies above the mean depends on the spread alone.
    low = np.full(len(spreads), within.min()) - 40 * spreads
    high = np.full(len(spreads), within.max()) + 40 * spreads
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = ndtr((middle[:, None] - within) / spreads[:, None]).mean(axis=1) < share
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _ends(np.exp(means + high[:, None]), confidence)


def share_of_all(launches: Sequence[np.ndarray], ms: float, confidence: float) -> tuple[float, float]:
    """A two-sided interval for the share of all calls that take longer than so many ms; of two launches or more."""
    from scipy.special import ndtr

    means, spreads, within = _possible(launches)
    above = means[..., None] + within - math.log(ms)
    return _ends(ndtr(above / spreads[:, None, None]).mean(axis=2), confidence)


def _possible(launches: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means by spread and position in it, spreads, and deviations within launches, all of logarithms.

    Each pair of a mean and a spread is as likely as another, given these launches.
    """
    from scipy.special import chdtri, ndtri

    logs = [np.log(launch) for launch in launches]
    medians = np.array([np.median(each) for each in logs])
    n = len(medians)
    even = (np.arange(_STEPS) + 0.5) / _STEPS
    spreads = max(float(np.std(medians, ddof=1)), _LEAST_SPREAD) * np.sqrt((n - 1) / chdtri(n - 1, even))
    means = medians.mean() + np.outer(spreads, ndtri(even)) / math.sqrt(n)
    deviations = np.concatenate([each - median for each, median in zip(logs, medians, strict=True)])
    within = np.quantile(deviations, (np.arange(_WITHIN) + 0.5) / _WITHIN)
    return means, spreads, within


def _ends(values: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
