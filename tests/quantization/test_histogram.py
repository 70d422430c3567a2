"""The growing histogram: every value in its bin, whatever the order and the cuts; and where it is then cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnxruntime.quantization.calibrate import HistogramCollector

from mlpack.quantization.clipping import entropy, mean_squared_error, percentile
from mlpack.quantization.histogram import HALF, Histogram

BINS = 2048
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
VECTORS = arrays.arrays(np.float32, st.integers(0, 60), elements=FLOATS)


def counted(*parts):
    histogram = Histogram()
    for part in parts:
        if part.size:
            histogram.add(part, float(np.abs(part).max()))
    return histogram


def same(one, other):
    return one.exponent == other.exponent and np.array_equal(one.counts, other.counts)


@given(VECTORS)
def test_every_value_lies_in_its_bin(values):
    histogram = counted(values)
    assert histogram.counts.sum() == values.size
    bins = np.floor(values.astype(np.float64) / histogram.width).astype(np.int64) + HALF
    assert np.array_equal(np.bincount(bins, minlength=2 * HALF), histogram.counts)


@given(st.lists(VECTORS, max_size=5), st.randoms())
def test_neither_order_nor_cuts_nor_merging_change_a_count(parts, random):
    together = counted(np.concatenate([np.empty(0, np.float32), *parts]))
    shuffled = random.sample(parts, len(parts))
    assert same(together, counted(*shuffled))
    merged = Histogram()
    for part in shuffled:
        merged.merge(counted(part))
    assert same(together, merged)


@given(VECTORS.filter(lambda values: np.abs(values).max(initial=0) > 1e-25))
def test_a_bin_is_fine_beside_the_largest_value(values):
    assert counted(values).width <= np.abs(values).max() / (HALF / 2)


@pytest.fixture(params=["normal", "laplace", "relu", "heavy", "one sided", "two values"])
def values(request):
    draw = np.random.default_rng(0)
    made = {
        "normal": lambda: draw.standard_normal(400_000),
        "laplace": lambda: draw.laplace(size=400_000),
        "relu": lambda: np.maximum(draw.standard_normal(400_000), 0),
        "heavy": lambda: draw.standard_t(3, 400_000),
        "one sided": lambda: draw.uniform(2, 3, 400_000),
        "two values": lambda: draw.choice([-0.25, 4.0], 400_000),
    }[request.param]
    return made().astype(np.float32)


def collected(values, method, *, symmetric=False, bins=BINS):
    """The range that onnxruntime's own collector gives, and the width of its bins."""
    collector = HistogramCollector(method, symmetric, bins, 128, 99.877, "same")
    collector.collect({"x": [values]})
    low, high = collector.compute_collection_result()["x"][:2]
    return float(low), float(high), 2 * float(np.abs(values).max()) / bins


def cut(values, how, **options):
    seen = float(values.min()), float(values.max())
    low, high = how(counted(values[::2], values[1::2]), seen, **options)
    return max(low, seen[0]), min(high, seen[1])


def test_percentiles_are_those_of_onnxruntime_within_a_bin(values, capsys):
    low, high, width = collected(values, "percentile")
    assert cut(values, percentile, keep=0.99877, symmetric=False) == pytest.approx((low, high), abs=1.01 * width)
    low, high, width = collected(values, "percentile", symmetric=True)
    assert cut(values, percentile, keep=0.99877, symmetric=True) == pytest.approx((low, high), abs=1.01 * width)


def test_the_entropy_threshold_is_that_of_onnxruntime_within_a_bin(values, capsys):
    low, high, width = collected(values, "entropy")
    assert cut(values, entropy) == pytest.approx((low, high), abs=1.01 * width)


@given(arrays.arrays(np.float32, st.integers(1, 200), elements=st.floats(-100, 100, width=32)))
def test_a_percentile_leaves_out_no_more_than_it_may(values):
    histogram = counted(values)
    low, high = percentile(histogram, (float(values.min()), float(values.max())), keep=0.9, symmetric=False)
    assert np.mean(values < low) <= 0.05
    assert np.mean(values > high + histogram.width) <= 0.05


def squared_error(values, low, high):
    step = (high - low) / 255
    return float(np.mean((np.clip(np.round((values - low) / step), 0, 255) * step + low - values) ** 2))


def test_the_least_squared_error_is_less_than_that_of_the_whole_range(values):
    low, high = cut(values, mean_squared_error, symmetric=False)
    low, high = min(low, 0.0), max(high, 0.0)
    whole = min(0.0, float(values.min())), max(0.0, float(values.max()))
    assert squared_error(values, low, high) <= squared_error(values, *whole) * 1.001
    for share in (0.95, 1.05):
        assert squared_error(values, low, high) <= squared_error(values, low * share, high * share) * 1.02


def test_symmetric_ranges_are_symmetric(values):
    for low, high in (
        percentile(counted(values), (-9.0, 9.0), keep=0.99, symmetric=True),
        mean_squared_error(counted(values), (float(values.min()), float(values.max())), symmetric=True),
    ):
        assert low == -high
