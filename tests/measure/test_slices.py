"""Groups: intervals that hold for all of them at once, the worst first; and the samples that flipped."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.measure.limits import Limit
from mlpack.measure.metrics import metric
from mlpack.measure.slices import drops_by_group, flips

TOP1, MSE, PEARSON = (metric(name, labels=True, output=None) for name in ("top1", "mse", "pearson"))


def test_intervals_hold_for_all_groups_at_once():
    """Ten groups without any drop: in 90% of studies at least, no interval misses 0."""
    rng = np.random.default_rng(1)
    group = np.arange(3000) % 10
    missed = 0
    for _ in range(150):
        flipped = rng.random(3000)
        one = {"score": (flipped > 0.02).astype(np.uint8)}
        two = {"score": ((flipped < 0.02) | (flipped > 0.04)).astype(np.uint8)}
        found = drops_by_group(TOP1, one, two, group, None, None, 0)
        missed += any(not each.interval[0] <= 0 <= each.interval[1] for each in found)
    assert missed <= 0.10 * 150 + 2 * (150 * 0.1 * 0.9) ** 0.5


def test_the_worst_comes_first_and_is_judged_against_its_own_metric():
    one = {"score": np.ones(4000, np.uint8)}
    two = {"score": np.ones(4000, np.uint8)}
    group = np.repeat(["a", "b"], 2000)
    two["score"][2000:2200] = 0
    first, second = drops_by_group(TOP1, one, two, group, None, Limit.parse("1%"), 0)
    assert (first.group, first.verdict, first.drop, first.samples) == ("b", "fail", 0.1, 2000)
    assert (second.group, second.verdict) == ("a", "pass")


def test_other_metrics_and_groups_where_they_are_undefined():
    rng = np.random.default_rng(2)
    one = {"predicted": rng.normal(size=300), "label": np.where(np.arange(300) < 200, np.arange(300.0), 7.0)}
    group = np.repeat([0, 1, 2], 100)
    found = {each.group: each for each in drops_by_group(PEARSON, one, one, group, None, None, 0)}
    assert found["2"].drop is None
    assert found["2"].verdict == "none"
    assert found["0"].drop == 0
    worse = {"score": rng.random(300)}
    (first, *_) = drops_by_group(MSE, {"score": np.zeros(300)}, worse, group, group // 2, None, 0)
    assert first.drop > 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_flips_are_the_samples_that_differ(pairs):
    before, after = (np.array(each, dtype=np.uint8) for each in zip(*pairs, strict=True))
    rows = np.arange(len(pairs)) * 3
    found = flips(before, after, rows)
    assert sorted([*found["worse"], *found["better"]]) == [int(row) for row in rows[before != after]]
    assert all(before[row // 3] and not after[row // 3] for row in found["worse"])
    named = flips(before, after, rows, np.array([f"{row}.jpg" for row in rows]))
    assert named["worse_files"] == [f"{row}.jpg" for row in found["worse"]]
    assert named["better_files"] == [f"{row}.jpg" for row in found["better"]]
