"""A batch sweep: its knee, and the best batch size within a limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.core.artifact import Timing
from mlpack.measure.sweep import sweep


def timing(p50, p99=None):
    ends = None if p99 is None else (0.9 * p99, 1.1 * p99)
    return Timing(p50=p50, p99=p99, p99_ci95=ends, n=1000, launches=5)


def test_the_knee_is_where_throughput_stops_to_grow():
    found = sweep({1: timing(1.0), 2: timing(1.2), 4: timing(2.0), 8: timing(3.9), 16: timing(7.8)}, None)
    assert found.throughput[1] == pytest.approx(1000)
    assert found.knee == 4
    assert found.best is None


def test_the_best_batch_size_holds_the_limit():
    timings = {1: timing(1.0, 1.5), 4: timing(2.0, 3.0), 8: timing(3.0, 9.0)}
    assert sweep(timings, 5.0).best == 4
    assert sweep(timings, 10.0).best == 8
    assert sweep(timings, 9.5).best == 4, "the interval of batch 8 ends at 9.9"
    none = sweep(timings, 1.0)
    assert none.best is None
    assert "no batch size has its P99 surely within 1 ms" in none.best_reason


def test_a_batch_size_without_a_p99_is_never_the_best():
    found = sweep({1: timing(1.0, 1.5), 8: timing(2.0)}, 5.0)
    assert found.best == 1
    assert "batch 8" in found.best_reason


@given(st.dictionaries(st.integers(1, 512), st.floats(0.01, 1e4), min_size=1))
def test_the_knee_gives_nearly_all(p50):
    found = sweep({batch: timing(ms) for batch, ms in p50.items()}, None)
    assert found.throughput[found.knee] >= 0.9 * max(found.throughput.values())
    assert all(found.throughput[batch] < 0.9 * max(found.throughput.values()) for batch in p50 if batch < found.knee)
