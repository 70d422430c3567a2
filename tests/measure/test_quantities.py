"""Amounts as people write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.errors import UsageError
from mlpack.measure.quantities import bound, ceiling, milliseconds, share

AMOUNTS = st.floats(min_value=1e-3, max_value=1e6).map(lambda number: float(f"{number:.4f}"))


@given(AMOUNTS, st.sampled_from([("us", 1e-3), ("ms", 1.0), ("s", 1e3)]), st.sampled_from(["", " "]))
def test_a_time_is_read_in_any_unit(number, unit, gap):
    assert milliseconds(f"{number:.4f}{gap}{unit[0]}", "--max-p99") == pytest.approx(number * unit[1])


@given(AMOUNTS, st.sampled_from([("B", 1), ("KB", 1e3), ("mb", 1e6), ("GiB", 2**30)]))
def test_a_size_is_read_in_any_unit(number, unit):
    found = ceiling(f"{number:.4f}{unit[0]}", "--max-size")
    assert found.over(None) == found.over(17.0) == pytest.approx(number * unit[1])


@given(AMOUNTS, st.floats(1, 1e9))
def test_growth_is_over_the_baseline(percent, size):
    found = ceiling(f"+{percent:.4f}%", "--max-size")
    assert found.over(size) == pytest.approx(size * (1 + percent / 100))
    assert found.over(None) is None


def test_a_share_over_a_time():
    found = bound("0.5%:1.5s", "--max-slow")
    assert (found.share, found.ms) == (0.005, 1500)


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_in_our_words(text):
    for parse in (share, milliseconds, ceiling, bound):
        with contextlib.suppress(UsageError):
            parse(text, "--flag")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (share, "10"), (share, "-3%"), (share, "1e999%"), (share, "٣%"), (milliseconds, "20"), (milliseconds, "0ms"),
        (ceiling, "25"), (ceiling, "25XB"), (ceiling, "-1MB"), (bound, "1%"), (bound, "100%:2ms"), (bound, "1%:2"),
    ],
)  # fmt: skip
def test_these_are_refused_with_the_flag_and_an_example(parse, text):
    with pytest.raises(UsageError) as caught:
        parse(text, "--flag")
    assert "--flag" in caught.value.message
    assert caught.value.hint.startswith("--flag ")
