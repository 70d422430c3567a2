"""Statistics over launches: a block is a fresh process, and intervals are over blocks.

Calls within a launch resemble each other far more than calls of two launches do (at batch 1 launch medians
vary by 5 to 8%, while an interval over one launch's calls claims 3%), so the number of launches is what an
interval counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlpack.core.artifact import Timing
from mlpack.measure.other_launches import percentile_of_all
from mlpack.measure.percentiles import Percentile, percentile, values_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

# Intervals claim 95%. Rounds go on until an interval is narrow enough, and stopping at a narrow one errs more often
# than a fixed number of rounds: simulated, 6.8% with 0.95 here and 4.4% with 0.97 (docs/decisions/0013).
_NOMINAL = 0.97
_CLAIMED = 0.95
_P99 = 0.99
Interval = tuple[float, float]


def p50_over_launches(launches: Sequence[np.ndarray]) -> tuple[float, Interval | None]:
    """The median of the launches' medians in ms, with a 95% t interval of their logarithms.

    No interval for a single launch. With 5 launches no order statistics reach 95% (the range of 5 values
    covers a median in 93.75%), which is why a t interval is used; launch medians are means of many calls,
    near log-normal.
    """
    medians = _medians(launches)
    p50 = float(np.median(medians))
    interval = _t_interval(np.log(medians))
    return p50, None if interval is None else (min(interval[0], p50), max(interval[1], p50))


def speedup(baseline: Sequence[np.ndarray], candidate: Sequence[np.ndarray]) -> tuple[float, Interval | None]:
    """How many times faster the candidate is, with a 95% interval over rounds; None for a single round.

    Launch i of both were adjacent in time. The ratio of their medians is taken per round, so that the
    machine's slow drift cancels, and a t interval of its logarithm over the rounds (2 or more; 5 by
    default, with a spread between launches of 5 to 8%: too few for a bootstrap, which would be narrower
    than it is right).
    """
    ratios = np.log(_medians(baseline)) - np.log(_medians(candidate))
    return float(np.exp(np.mean(ratios))), _t_interval(ratios)


def p99_over_launches(launches: Sequence[np.ndarray]) -> Percentile:
    """The 99th percentile of all launches' calls in ms.

    Its 95% interval is that of two order statistics, of calls as much faster or slower as the launches leave possible;
    it is no narrower than that of the percentile of all launches that there could be.
    """
    found = percentile(np.concatenate(list(launches)), _P99)
    fast, slow = (percentile(moved(launches, _CLAIMED), _P99) for moved in (calls_at_least, calls_at_most))
    low = None if found.low is None or fast.low is None else min(found.low, fast.low)
    high = None if found.high is None or slow.high is None else max(found.high, slow.high)
    if len(launches) > 1 and low is not None and high is not None:
        least, most = percentile_of_all(launches, _P99, _CLAIMED)
        low, high = min(low, least), max(high, most)
    return Percentile(found.value, low, high, found.n)


def calls_at_most(launches: Sequence[np.ndarray], confidence: float) -> np.ndarray:
    """The calls of all launches, ms, were these as slow and as different as their number leaves possible."""
    return _moved(launches, confidence, 1)


def calls_at_least(launches: Sequence[np.ndarray], confidence: float) -> np.ndarray:
    """The calls of all launches, ms, were these as fast and as much alike as their number leaves possible."""
    return _moved(launches, confidence, -1)


def _moved(launches: Sequence[np.ndarray], confidence: float, way: Literal[1, -1]) -> np.ndarray:
    """A high percentile of calls counts on how launches differ, since those of one launch are slow together.

    Log medians are taken for normal: their mean goes to the end of its t interval, their deviations from it by the
    end of the standard deviation's χ² interval, and the calls with them. Both intervals have this two-sided confidence.
    """
    logarithms = np.log(_medians(launches))
    n = len(logarithms)
    if n == 1:
        return np.asarray(launches[0])
    from scipy.special import chdtri, stdtrit

    tail = (1 + confidence) / 2
    reach = way * stdtrit(n - 1, tail) * np.std(logarithms, ddof=1) / math.sqrt(n)
    wider = math.sqrt((n - 1) / chdtri(n - 1, tail if way > 0 else 1 - tail))
    shifts = reach + (wider - 1) * (logarithms - logarithms.mean())
    return np.concatenate([ms * math.exp(shift) for ms, shift in zip(launches, shifts, strict=True)])


def not_slower(ci95: Interval) -> bool:
    """Whether a speed-up's interval leaves room for it: its better end reaches 1."""
    return ci95[1] >= 1.0


def drift(contenders: Sequence[Sequence[np.ndarray]]) -> float:
    """How much slower the machine became from the first round to the last, as a share; negative: faster.

    The slope of the rounds' mean log median over all contenders (least squares); what is common to all of them is
    the machine's. 0 with fewer than 3 rounds.
    """
    logs = np.array([np.log(_medians(launches)) for launches in contenders])
    rounds = logs.shape[1]
    if rounds < 3:  # noqa: PLR2004 - two points always lie on a line
        return 0.0
    slope = np.polyfit(np.arange(rounds), logs.mean(axis=0), 1)[0]
    return float(np.expm1(slope * (rounds - 1)))


def timing(launches: Sequence[np.ndarray]) -> Timing:
    """The record of one contender; p99 is over the calls of all launches, where they are enough."""
    n = sum(map(len, launches))
    p50, interval = p50_over_launches(launches)
    needed = values_needed(_P99)
    if n < needed:
        reason = f"{n} calls cannot carry a p99: its 95% interval needs at least {needed}"
        return Timing(p50=p50, p50_ci95=interval, p99=None, p99_reason=reason, n=n, launches=len(launches))
    found = p99_over_launches(launches)
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return Timing(p50=p50, p50_ci95=interval, p99=found.value, p99_ci95=ends, n=n, launches=len(launches))


def _medians(launches: Sequence[np.ndarray]) -> np.ndarray:
    if not launches or not all(len(launch) for launch in launches):
        raise ValueError("a launch without calls has no median")
    return np.array([np.median(launch) for launch in launches])


def _t_interval(logarithms: np.ndarray) -> Interval | None:
    n = len(logarithms)
    if n == 1:
        return None
    from scipy.special import stdtrit

    reach = float(stdtrit(n - 1, (1 + _NOMINAL) / 2)) * float(np.std(logarithms, ddof=1)) / math.sqrt(n)
    middle = float(np.mean(logarithms))
    return math.exp(middle - reach), math.exp(middle + reach)
