"""How many samples prove a model, and what so many can decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.measure import proportions
from mlpack.measure.bootstrap import paired_drop
from mlpack.measure.metrics import metric
from mlpack.measure.power import can_decide, can_decide_by_width, samples_to_prove


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.002, 0.1))
def test_samples_to_prove_are_just_enough(b, c, limit):
    n = 500
    needed = samples_to_prove(b, c, n, limit)
    if needed is None:
        assert (b - c) / n >= limit or (limit - (b - c) / n) < 1e-6
        return
    scale = needed / n
    assert proportions.interval(b * scale, c * scale, needed)[1] <= limit
    if needed > 1:
        less = needed - 1
        assert proportions.interval(b * less / n, c * less / n, less)[1] > limit


def test_can_decide():
    small, large = can_decide(200, 0.01), can_decide(20_000, 0.01)
    assert not small.enough
    assert large.enough
    assert can_decide(small.samples_needed, 0.01).enough
    assert not can_decide(small.samples_needed - 1, 0.01).enough
    assert can_decide(2000, 0.01, discordance=0.08).chance < can_decide(2000, 0.01).chance


def test_can_decide_foretells_what_happens():
    rng = np.random.default_rng(5)
    n, limit, discordance = 2000, 0.01, 0.04
    flips = rng.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=1500)
    passed = np.mean([proportions.interval(b, c, n)[1] <= limit for b, c, _ in flips])
    assert can_decide(n, limit, discordance).chance == pytest.approx(passed, abs=0.06)


def test_a_width_foretells_what_happens():
    """Squared errors of a harmless model: as often as foretold its interval on other rows is inside the limit."""
    rng = np.random.default_rng(6)
    n, limit = 400, 0.012
    mse = metric("mse", labels=True, output=None)

    def drop():
        error = rng.normal(0, 1, n)
        moved = error + rng.normal(0, 0.07, n)
        return paired_drop(mse, {"score": error**2}, {"score": moved**2}, None, 0, resamples=300)

    drops = [drop() for _ in range(200)]
    harm = 0.07**2  # the noise's own power: what is asked is whether a model without harm would be proven
    reach = float(np.median([each.high - each.value for each in drops])) * np.sqrt(n)  # one draw's is 20% off
    passed = np.mean([each.high - harm <= limit for each in drops])
    told = can_decide_by_width(n, limit, reach)
    assert told.chance == pytest.approx(passed, abs=0.12)
    assert can_decide_by_width(told.samples_needed, limit, reach).chance >= 0.8
    assert can_decide_by_width(told.samples_needed - 1, limit, reach).chance < 0.8


def test_what_no_answer_differs_in_is_decided():
    assert can_decide_by_width(1, 0.01, 0.0).chance == 1.0
