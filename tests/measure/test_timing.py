"""Percentiles, clocks and launches: coverage, steadiness, intervals."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mlpack.core.artifact import Timing
from mlpack.measure.clock import time_calls, warm_up
from mlpack.measure.launches import not_slower, p50_over_launches, speedup, timing
from mlpack.measure.percentiles import percentile, values_needed

# Real clocks on a machine that may stall for seconds: what is claimed has to hold in one of four tries.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5)


@given(st.integers(1, 2000), st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_an_end_is_the_tightest_order_statistic_that_covers(n, q):
    got = percentile(np.arange(1, n + 1), q)
    low, high = int(got.low or 0), int(got.high or n + 1)
    assert binom.cdf(low - 1, n, q) <= 0.025 < binom.cdf(low, n, q)
    if got.high is None:
        assert binom.cdf(n - 1, n, q) < 0.975
    else:
        assert binom.cdf(high - 1, n, q) >= 0.975 > binom.cdf(high - 2, n, q)
    assert low <= got.value <= high
    assert got.n == n


@pytest.mark.parametrize(("q", "n"), [(0.5, 30), (0.9, 100), (0.99, 500)])
def test_coverage(q, n):
    rng = np.random.default_rng(0)
    true = -np.log(1 - q)
    found = [percentile(rng.exponential(1, n), q) for _ in range(1000)]
    covered = [(p.low or 0) <= true <= (p.high or np.inf) for p in found]
    assert np.mean(covered) >= 0.94


def test_p99_needs_enough_calls():
    needed = values_needed(0.99)
    assert needed == 368
    assert percentile(np.arange(needed), 0.99).high is not None
    assert percentile(np.arange(needed - 1), 0.99).high is None
    few = timing([np.arange(1.0, needed)])
    assert (few.p99, few.p99_ci95) == (None, None)
    assert "367 calls" in few.p99_reason
    assert "368" in few.p99_reason
    many = timing([np.arange(1.0, 1001)])
    assert (many.p99, many.p99_reason) == (990.0, None)
    with pytest.raises(ValueError, match="0 values"):
        percentile(np.array([]), 0.5)


def test_the_interval_of_a_p99_counts_launches():
    """Ten times as many calls of the same launches tell little more; launches that agree tell as much as all calls."""
    draw = np.random.default_rng(3)
    paces = (0.9, 0.96, 1.0, 1.05, 1.1)

    def width(calls, apart):
        made = timing([pace**apart * draw.normal(10, 0.2, calls) for pace in paces])
        low, high = made.p99_ci95
        assert low <= made.p99 <= high
        return high - low

    assert width(2000, 1) > 0.8 * width(200, 1) > 4 * width(200, 0)
    assert width(2000, 0) < 0.5 * width(200, 0)


def test_time_calls():
    taken = time_calls(lambda: time.sleep(0.004), 0.1, warmup_seconds=0)
    assert 10 <= len(taken) <= 25
    assert taken.min() >= 4.0
    few = time_calls(lambda: time.sleep(0.01), 0.0, minimum=3, warmup_seconds=0)
    assert len(few) == 3


def test_warm_up_waits_for_steadiness():
    slow_until = time.perf_counter() + 0.25

    def cools_down():
        left = slow_until - time.perf_counter()
        time.sleep(0.002 + max(0.0, left) / 10)

    assert warm_up(cools_down, 0.1)
    assert time.perf_counter() > slow_until
    calls = itertools.count()
    assert not warm_up(lambda: time.sleep(0.001 * 1.3 ** next(calls)), 0.02)


def test_speedup_of_paired_rounds():
    rng = np.random.default_rng(0)
    drift = np.exp(rng.normal(0, 0.3, 5))
    slow = [drift[i] * rng.lognormal(np.log(10), 0.02, 200) for i in range(5)]
    fast = [drift[i] * rng.lognormal(np.log(4), 0.02, 200) for i in range(5)]
    ratio, (low, high) = speedup(slow, fast)
    assert ratio == pytest.approx(2.5, rel=0.01)
    assert low < ratio < high
    assert high / low < 1.03  # the drift, which both share, has cancelled
    back, (back_low, back_high) = speedup(fast, slow)
    assert (back, back_low, back_high) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert speedup(slow[:1], fast[:1])[1] is None
    with pytest.raises(ValueError, match="broadcast"):
        speedup(slow, fast[:3])


def test_speedup_interval_covers():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(500):
        slow = [np.array([10 * np.exp(rng.normal(0, 0.07))]) for _ in range(5)]
        fast = [np.array([10 * np.exp(rng.normal(0, 0.07))]) for _ in range(5)]
        _, (low, high) = speedup(slow, fast)
        hits += low <= 1 <= high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)


def test_not_slower():
    assert not_slower((0.9, 1.0))
    assert not not_slower((0.9, 0.99))


def test_timing_record():
    rng = np.random.default_rng(2)
    launches = [rng.lognormal(np.log(5), 0.05, 100) * factor for factor in (1, 1.05, 0.97, 1.02, 1.01)]
    got = timing(launches)
    assert isinstance(got, Timing)
    assert (got.n, got.launches, got.p99_reason) == (500, 5, None)
    assert got.p50_ci95[0] < got.p50 < got.p50_ci95[1]
    assert got.p99 > got.p50
    single = timing(launches[:1])
    assert single.p50_ci95 is None
    assert single.p99 is None
    assert "100 calls" in single.p99_reason
    outlier = [np.array([value]) for value in [1.0] * 30 + [1e6]]
    p50, (low, high) = p50_over_launches(outlier)
    assert low <= p50 <= high
    with pytest.raises(ValueError, match="without calls"):
        timing([np.array([])])
