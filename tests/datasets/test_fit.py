"""Data is held against the model's inputs: renamed and cast where that is safe, refused where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.core.model import TensorSpec
from mlpack.datasets import check_fits, open_data
from mlpack.datasets.part import part_of
from mlpack.errors import DataError


def of(tmp_path, **arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    return open_data(str(tmp_path / "d.npz"))


def spec(name="x", dtype="float32", dims=("batch", 3)):
    return TensorSpec(name=name, dtype=dtype, dims=dims)


def test_what_fits_is_left_alone(tmp_path):
    data = of(tmp_path, x=np.ones((4, 3), np.float32))
    assert check_fits(data, (spec(),)) is data
    assert check_fits(data, (spec(dims=(1, 3)),)) is data


def test_a_single_array_is_renamed_and_stays_so_in_a_part(tmp_path):
    data = check_fits(of(tmp_path, image=np.ones((4, 3), np.float32), labels=np.arange(4)), (spec("pixels"),))
    (batch,) = part_of(data, np.array([1, 3])).batches(8)
    assert list(batch.inputs) == ["pixels"]
    assert batch.labels.tolist() == [1, 3]
    assert data.inputs == (spec("pixels"),)
    assert check_fits(data, (spec("pixels"),)) is data


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("float64", "float32"),
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("int32", "int64"),
        ("int64", "int32"),
        ("uint8", "int64"),
        ("uint8", "float32"),
        ("int64", "float32"),
        ("bool", "float32"),
        ("bool", "int64"),
    ],
)
def test_safe_casts_are_made_and_said(have, want, tmp_path):
    data = check_fits(of(tmp_path, x=np.ones((4, 3), have)), (spec(dtype=want),))
    (batch,) = data.batches(8)
    assert batch.inputs["x"].dtype.name == want
    assert data.casts == (f"x: {have} → {want}",)
    assert data.inputs[0].dtype == want


@settings(max_examples=60)
@given(
    value=st.integers(-(2**63), 2**63 - 1),
    want=st.sampled_from(["int8", "uint8", "int32", "uint32", "uint64", "float32", "float64"]),
)
def test_a_whole_number_survives_or_is_refused(value, want, tmp_path):
    array = np.zeros((5, 3), np.int64)
    array[2, 1] = value
    data = check_fits(of(tmp_path, x=array), (spec(dtype=want),))
    try:
        (batch,) = data.batches(8)
    except DataError as error:
        refusal = error.message
    else:
        assert int(batch.inputs["x"][2, 1]) == value
        return
    assert "row 2" in refusal
    assert str(value) in refusal
    assert value != int(np.float32(value)) or want != "float32"


@pytest.mark.parametrize(
    "case", ["float_to_int", "rank", "dim", "overflow", "strangers", "missing", "symbol", "int_to_bool"]
)
def test_refusals(case, tmp_path):
    x = np.ones((4, 3), np.float32)
    both = (spec("ids", "int64", ("batch", "seq")), spec("mask", "int64", ("batch", "seq")))
    arrays, wanted, words = {
        "float_to_int": ({"x": x}, (spec(dtype="int64"),), ["float32", "int64"]),
        "int_to_bool": ({"x": x.astype(int)}, (spec(dtype="bool"),), ["int64", "bool"]),
        "rank": ({"x": x}, (spec(dims=("batch", 3, 1)),), ["[batch, 3]", "[batch, 3, 1]"]),
        "dim": ({"x": x}, (spec(dims=("batch", 4)),), ["[batch, 3]", "[batch, 4]"]),
        "overflow": ({"x": np.full((4, 3), 1e300)}, (spec(),), ["1e+300", "float32"]),
        "strangers": ({"ids": x, "mask": x, "extra": x}, both, ["extra"]),
        "missing": ({"ids": x, "maks": x}, both, ["maks", "mask"]),
        "symbol": ({"ids": np.ones((4, 3), int), "mask": np.ones((4, 5), int)}, both, ["'seq'", "3", "5"]),
    }[case]
    with pytest.raises(DataError) as caught:
        list(check_fits(of(tmp_path, **arrays), wanted).batches(8))
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
