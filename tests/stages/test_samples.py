"""Rows to run a model on: real where there are any, of the size that a static batch needs, and how far two answers are
apart."""

import numpy as np
import pytest
from doors import rows_for
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlpack.core.model import TensorSpec
from mlpack.stages.samples import difference, rows, synthetic


def test_real_rows_first_and_no_more_than_asked_for(bench, kept):
    data = rows_for("mlp", 10)
    job = bench.job(parts={"calibration": bench.data(**data)})
    found, kind = rows(kept.exported("mlp"), job, "calibration", 4)
    assert kind == "real"
    np.testing.assert_array_equal(found["x"], data["x"][:4])
    assert len(rows(kept.exported("mlp"), job, "calibration", 50)[0]["x"]) == 10


def test_a_static_batch_is_filled_or_made_up(bench, kept):
    fixed = kept.exported("mlp").model_copy(update={"inputs": (TensorSpec(name="x", dtype="float32", dims=(4, 8)),)})
    enough = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 10))})
    assert rows(fixed, enough, "calibration", 1)[1] == "real"
    short = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 3))})
    made, kind = rows(fixed, short, "calibration", 1)
    assert (made["x"].shape, kind) == ((4, 8), "synthetic")


def test_without_data_rows_are_seeded(bench, kept):
    one, two = (rows(kept.exported("transformer"), bench.job(seed=3), "calibration", 5) for _ in range(2))
    np.testing.assert_array_equal(one[0]["tokens"], two[0]["tokens"])
    assert one[1] == "synthetic"
    assert one[0]["tokens"].dtype == np.int64
    assert set(np.unique(one[0]["tokens"])) <= {0, 1}, "inside any lookup table"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "uint8", "bool"])
def test_synthetic_values_have_the_type_and_shape_of_the_spec(dtype):
    made = synthetic(TensorSpec(name="x", dtype=dtype, dims=("batch", 3, "free")), 2, 0)
    assert (made.dtype.name, made.shape) == (dtype, (2, 3, 8))


finite = arrays.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6))


@given(finite, finite)
def test_difference_is_numpys(one, two):
    largest, relative = difference(one, two)
    assert largest == np.abs(one - two).max()
    norm = np.linalg.norm(one)
    if norm > 0:
        assert relative == pytest.approx(np.linalg.norm(one - two) / norm)
    else:
        assert relative == (np.inf if np.linalg.norm(one - two) > 0 else 0.0)


def test_shapes_and_cells_that_are_no_numbers_differ_infinitely():
    one = np.array([[1.0, np.nan]])
    assert difference(one, one) == (0.0, 0.0)
    assert difference(one, np.array([[1.0, 2.0]])) == (np.inf, np.inf)
    assert difference(one, one.T) == (np.inf, np.inf)


def test_infinities_of_another_sign_differ():
    assert difference(np.array([1.0, np.inf]), np.array([1.0, -np.inf])) == (np.inf, np.inf)
