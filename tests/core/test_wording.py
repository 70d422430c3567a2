"""Numbers as people read them, also those that a measurement could not tell."""

from __future__ import annotations

import math

import pytest

from mlpack.core.wording import milliseconds_interval, times, times_interval


@pytest.mark.parametrize(
    ("factor", "told"),
    [(2.314, "2.31"), (0.01, "0.01"), (1000.0, "1000.00"), (9e25, ">1,000"), (1e-26, "<0.01"), (math.inf, ">1,000"),
     (0.0, "<0.01"), (math.nan, "–")],
)  # fmt: skip
def test_a_factor_that_two_launches_cannot_tell_has_no_digits(factor, told):
    assert times(factor) == told


def test_an_interval_of_factors():
    assert times_interval((2.1, 2.523)) == "[2.10, 2.52]"
    assert times_interval((1e-26, 9e25)) == "[<0.01, >1,000]"
    assert times_interval(None) == ""


def test_what_no_call_takes_is_not_printed_as_a_time():
    assert milliseconds_interval((0.1244, 0.131)) == "[0.124, 0.131]"
    assert milliseconds_interval((1.2e-29, 3.1e27)) == "[<1e-05, >1e+06]"
    assert milliseconds_interval(None) == ""
