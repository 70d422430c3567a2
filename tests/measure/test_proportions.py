"""Tango's interval: published values, an independent solution, properties, and the error rate, enumerated."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binom, norm

from mlpack.measure.proportions import interval, tango, upper_rate


@pytest.mark.parametrize(
    ("b", "c", "n", "confidence", "low", "high"),
    [
        # R package PropCIs: scoreci.mp(25, 28, 618) and (48, 41) of 549, at 90%, as its users publish them.
        (28, 25, 618, 0.90, -0.0148, 0.0247),
        (48, 41, 549, 0.90, -0.0157, 0.0414),
        # Airway data of Bentur et al. (2009), n12 = 1, n21 = 7 of 21, in Fagerland, Lydersen, Laake,
        # Statistical Analysis of Contingency Tables (2017), chapter 8.
        (1, 7, 21, 0.95, -0.517, -0.026),
    ],
)
def test_published_values(b, c, n, confidence, low, high):
    got = tango(b, c, n, confidence)
    digits = 4 if n > 100 else 3
    assert (round(got[0], digits), round(got[1], digits)) == (low, high)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (3, 9, 200), (5, 0, 40), (0, 3, 70), (40, 20, 160)])
def test_ends_solve_the_score_equation_with_a_numerical_likelihood(b, c, n):
    def score(delta):
        def loss(q):
            cells = ((b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta))
            return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

        floor, ceiling = max(0.0, -delta), (1 - delta) / 2
        q = minimize_scalar(loss, bounds=(floor, ceiling), method="bounded", options={"xatol": 1e-13}).x
        return (b - c - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))

    z, theta = norm.ppf(0.95), (b - c) / n
    low = brentq(lambda delta: score(delta) - z, -0.999, theta - 1e-9)
    high = brentq(lambda delta: score(delta) + z, theta + 1e-9, 0.999)
    assert tango(b, c, n) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("n", [1, 10, 100, 10_000])
def test_no_difference_still_has_a_width(n):
    z = norm.ppf(0.95)
    assert tango(0, 0, n)[1] == pytest.approx(z * z / (n + z * z))
    assert interval(0, 0, n)[1] == pytest.approx(1 - 0.05 ** (1 / n))


def test_all_samples_one_way():
    assert tango(30, 0, 30)[1] == 1.0
    assert tango(0, 30, 30)[0] == -1.0
    assert 0.8 < tango(30, 0, 30)[0] < 1.0


counts = st.integers(1, 3000).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda b: st.integers(0, n - b).map(lambda c: (b, c, n)))
)


@given(counts)
def test_properties(case):
    b, c, n = case
    for method in (tango, interval):
        low, high = method(b, c, n)
        assert -1 <= low <= (b - c) / n <= high <= 1
        assert low < high
        assert method(c, b, n) == (-high, -low)
        wider = method(b, c, n, 0.99)
        assert wider[0] <= low
        assert wider[1] >= high
        many = method(4 * b, 4 * c, 4 * n)
        assert many[1] - many[0] < high - low
    assert interval(b, c, n)[0] <= tango(b, c, n)[0]
    assert interval(b, c, n)[1] >= tango(b, c, n)[1]


def test_counts_that_are_none_are_refused():
    for b, c, n in ((1, 1, 1), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="counts"):
            tango(b, c, n)


def test_upper_rate_is_exact():
    assert binom.cdf(4, 60, upper_rate(4, 60)) == pytest.approx(0.05)
    assert upper_rate(60, 60) == 1.0


@functools.cache
def fewest_improved(b, n, limit, method):
    """The smallest number of samples that got better with which b that got worse still pass."""
    return next((c for c in range(min(n - b, 60) + 1) if method(b, c, n)[1] <= limit), None)


def false_pass(n, limit, other_way, method):
    """Exact probability that a model whose true drop is the limit passes it."""
    harm = other_way + limit
    total = 0.0
    for b in range(int(binom.ppf(1 - 1e-9, n, harm)) + 2):
        weights = binom.pmf(np.arange(min(n - b, 60) + 1), n - b, other_way / (1 - harm))
        passing = fewest_improved(b, n, limit, method)
        if passing is not None:
            total += binom.pmf(b, n, harm) * weights[passing:].sum()
    return total


def test_a_model_at_the_limit_passes_in_5_percent_at_most():
    rates = {
        (n, limit, other): false_pass(n, limit, other, interval)
        for n in (50, 100, 268, 300, 1000)
        for limit in (0.005, 0.01, 0.02)
        for other in (0.0, 0.001, 0.01, 0.02)
        if n * (other + limit) < 25
    }
    assert max(rates.values()) <= 0.05
    # Why the tails are shortened, and the ends widened where all differences go one way:
    assert false_pass(268, 0.01, 0.0, tango) > 0.067
    assert false_pass(1000, 0.005, 0.005, tango) > 0.05
