"""A baseline file holds arrays as text, unchanged and small."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlpack.core.baseline import Packed, pack, unpack

DTYPES = st.sampled_from(["uint8", "int64", "float32", "float64", "bool", "int16"])


@given(arrays.arrays(DTYPES, arrays.array_shapes(max_dims=3, min_side=0, max_side=7)))
def test_what_is_packed_comes_back_by_value(array):
    (packed,) = pack({"it": array}).values()
    again = unpack(Packed.model_validate(json.loads(packed.model_dump_json())))
    assert again.shape == array.shape
    np.testing.assert_array_equal(again, array)


def test_right_and_wrong_takes_a_bit_a_sample():
    score = (np.random.default_rng(0).random(8919) < 0.75).astype(np.uint8)
    assert len(pack({"score": score})["score"].data) < 8919 / 8 * 4 / 3 + 40


@pytest.mark.parametrize("damaged", ["", "!!!", "AAAA"])
def test_damaged_text_is_a_value_error(damaged):
    (packed,) = pack({"it": np.arange(9)}).values()
    with pytest.raises(ValueError, match=r".*"):
        unpack(packed.model_copy(update={"data": damaged}))
