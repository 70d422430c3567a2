"""What counts as a line that is read right, and that its interval is that of a proportion."""

import importlib.util
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlpack.measure.limits import Limit, compare
from mlpack.measure.metrics import metric

FILE = Path(__file__).parents[2] / "sample_models" / "digit-lines" / "metric.py"
BLANK = 10

best_classes = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.integers(0, BLANK))


@pytest.fixture(scope="module")
def reader():
    spec = importlib.util.spec_from_file_location("digit_lines_metric", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logits(best):
    """Floats [n, steps, 11] whose highest class of each step is `best` [n, steps]."""
    return np.eye(BLANK + 1, dtype=np.float32)[best]


def padded(lines, longest):
    return np.array([[*line, *[-1] * (longest - len(line))] for line in lines], dtype=np.int64)


def read_one_by_one(steps):
    return [each for each, _ in groupby(steps) if each != BLANK]


@given(best_classes)
def test_repeats_are_one_digit_and_blanks_are_none(reader, best):
    lines = [read_one_by_one(row) for row in best.tolist()]
    np.testing.assert_array_equal(reader.decoded(logits(best)), padded(lines, best.shape[1]))


@given(best_classes, st.data())
def test_a_line_is_right_where_every_digit_is(reader, best, data):
    lines = [read_one_by_one(row) for row in best.tolist()]
    wanted = padded(lines, max(1, *map(len, lines)))
    assert reader.lines_right({"output": logits(best)}, wanted).all()
    row, place = data.draw(st.tuples(st.integers(0, len(wanted) - 1), st.integers(0, wanted.shape[1] - 1)))
    wanted[row, place] = (wanted[row, place] + data.draw(st.integers(2, BLANK))) % (BLANK + 1) - 1
    expected = [at != row for at in range(len(wanted))]
    assert reader.lines_right({"output": logits(best)}, wanted).tolist() == expected


def test_a_blank_between_them_makes_two_digits_of_one():
    both = metric(f"{FILE}:lines_right", labels=True, output=None)
    best = np.array([[3, BLANK, 3], [3, 3, BLANK]])
    assert both.keep({"output": logits(best)}, np.array([[3, 3], [3, 3]]))["score"].tolist() == [1, 0]


def test_lines_are_compared_as_right_or_wrong():
    scored = metric(f"{FILE}:lines_right", labels=True, output=None)
    labels = np.arange(100)[:, None] % 10
    original, worse = labels.copy(), labels.copy()
    worse[:3] = BLANK
    kept = [scored.keep({"output": logits(best)}, labels) for best in (original, worse)]
    compared = compare(scored, kept[0], kept[1], None, Limit.parse("1%"), seed=0)
    assert (compared.percent, compared.errors_baseline, compared.errors_optimized) == (True, 0, 3)
