"""A gate's answers: each end of each interval against its limit, and what an unsteady machine may still say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.measure import checks
from mlpack.measure.other_launches import percentile_of_all, share_of_all
from mlpack.measure.quantities import bound, ceiling


@pytest.mark.parametrize(
    ("speedup", "ci95", "rough", "verdict"),
    [
        (1.0, (0.97, 1.03), "", "pass"),
        (0.95, (0.88, 1.02), "", "likely"),
        (0.95, (0.70, 1.30), "", "inconclusive"),
        (0.70, (0.66, 0.74), "", "fail"),
        (0.70, (0.66, 0.74), "candidate", "unstable"),
        (0.95, (0.70, 1.30), "candidate", "unstable"),
        (1.0, (0.97, 1.03), "candidate", "pass"),
        (1.0, (0.97, 1.03), "baseline", "unstable"),
        (2.0, (1.90, 2.10), "baseline", "unstable"),
    ],
)
def test_a_median_that_grows(speedup, ci95, rough, verdict):
    """A disturbed candidate only looks slower; a disturbed baseline makes it look fast."""
    quiet = {"steady": not rough, "baseline_steady": rough != "baseline"}
    found = checks.p50_regression("m@1", 1, speedup, ci95, 0.10, **quiet)
    assert found.verdict == verdict
    assert found.interval == pytest.approx((1 / ci95[1] - 1, 1 / ci95[0] - 1))


def test_a_single_launch_judges_nothing():
    assert checks.p50_regression("m@1", 1, 0.2, None, 0.10, steady=True, baseline_steady=True).verdict == "skipped"


@pytest.mark.parametrize(
    ("n", "limit", "verdict"),
    [(2000, 30.0, "pass"), (2000, 5.0, "fail"), (2000, 9.9, "inconclusive"), (367, 30.0, "inconclusive")],
)
def test_p99_by_the_interval_between_two_order_statistics(n, limit, verdict):
    calls = np.random.default_rng(1).uniform(0, 10, n)
    found = checks.p99([calls], limit, steady=True)
    assert found.verdict == verdict
    if n < 368:
        assert found.measured is None
        assert "368" in found.says


@given(st.integers(0, 50), st.integers(100, 2000))
def test_the_share_of_slow_calls_lies_in_its_interval(slow, n):
    calls = np.concatenate([np.full(slow, 30.0), np.full(n - slow, 1.0)])
    found = checks.slow_share([calls], bound("5%:20ms", "--max-slow"), steady=True)
    low, high = found.interval
    assert low <= found.measured == slow / n <= high
    assert (found.verdict == "fail") == (low > 0.05)
    assert (found.verdict == "pass") == (high <= 0.05)


@pytest.mark.parametrize("within", [0.001, 0.03, 0.10])
def test_calls_of_a_launch_are_slow_together(within):
    """Launches differ by 6%, as they do here: at the limit hardly more than 5% of gates may pass."""
    draw, gates = np.random.default_rng(7), 400
    at_limit = np.exp(np.hypot(0.06, within) * 1.6448536)
    at_p99 = np.exp(np.hypot(0.06, within) * 2.3263479)
    passed = {"share": 0, "p99": 0}
    for _ in range(gates):
        launches = [np.exp(draw.normal(draw.normal(0, 0.06), within, 200)) for _ in range(5)]
        allowed = bound(f"5%:{at_limit:.9f}ms", "--max-slow")
        passed["share"] += checks.slow_share(launches, allowed, steady=True).verdict == "pass"
        passed["p99"] += checks.p99(launches, float(at_p99), steady=True).verdict == "pass"
    assert passed["share"] <= 0.05 * gates
    assert passed["p99"] <= 0.05 * gates


def test_size_and_memory():
    assert checks.size(10, 10, ceiling("+0%", "f")).verdict == "pass"
    assert checks.size(11, 10, ceiling("+0%", "f")).verdict == "fail"
    assert checks.size(11, None, ceiling("+0%", "f")).verdict == "skipped"
    assert checks.size(2_000_001, None, ceiling("2MB", "f")).verdict == "fail"
    peaks = [90_000_000, 100_000_000, 110_000_000]
    answers = {
        text: checks.memory(peaks, None, ceiling(text, "f")).verdict for text in ("120MB", "100MB", "80MB", "+5%")
    }
    assert answers == {"120MB": "pass", "100MB": "inconclusive", "80MB": "fail", "+5%": "skipped"}
    assert checks.memory(peaks, [100_000_000], ceiling("+20%", "f")).verdict == "pass"


def test_checks_of_calls_name_the_batch_that_was_timed():
    calls = np.linspace(1, 9, 1000)
    assert checks.p99([calls], 20.0, 4, steady=True).name == "P99 at batch 4"
    assert checks.p99([calls[:10]], 20.0, 4, steady=True).name == "P99 at batch 4"
    assert (
        checks.slow_share([calls], bound("5%:20ms", "--max-slow"), 4, steady=True).name == "calls over 20 ms at batch 4"
    )


def test_of_launches_whose_calls_are_alike_a_percentile_is_the_normal_tolerance_bound():
    """Krishnamoorthy and Mathew, table B1: the factor for 95% of all with 95% confidence from five is 4.203."""
    logs = np.array([-0.1, -0.03, 0.0, 0.05, 0.12])
    launches = [np.full(20, np.exp(each)) for each in logs]
    _, high = percentile_of_all(launches, 0.95, 0.90)
    assert np.log(high) == pytest.approx(logs.mean() + 4.203 * logs.std(ddof=1), rel=0.02)
    low, high = share_of_all(launches, float(high), 0.90)
    assert low < high == pytest.approx(0.05, abs=0.002)
