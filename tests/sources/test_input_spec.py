"""`--input` is read as it is written, and names are matched with forward()'s parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.core.model import TensorSpec
from mlpack.errors import DataError, ModelError, UsageError
from mlpack.sources.input_spec import Parameters, choose_inputs, parse_input, parse_inputs

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]*", fullmatch=True)
dims = st.one_of(st.integers(1, 10**9), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True))
specs = st.builds(
    TensorSpec,
    name=names,
    dtype=st.sampled_from(["float32", "int64", "bool", "bfloat16", "uint8"]),
    dims=st.lists(dims, min_size=1, max_size=5).map(tuple),
)


@given(spec=specs)
def test_round_trip(spec):
    assert parse_input(str(spec)) == spec


@given(text=st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        spec = parse_input(text)
    except UsageError:
        return
    assert parse_input(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "word"),
    [("x", "name=dtype:dims"), ("x=flaot32:1", "'flaot32'"), ("x=float32:1,,2", "''"), ("x=float32:0", "'0'"),
     ("x=float32:a-b", "'a-b'"), ("=float32:1", "name=dtype:dims")],
)  # fmt: skip
def test_what_is_wrong_is_named(text, word):
    with pytest.raises(UsageError) as caught:
        parse_input(text)
    assert word in caught.value.message


def test_one_name_twice():
    with pytest.raises(UsageError, match="twice"):
        parse_inputs(["x=float32:1", "x=float32:2"])


def of(*texts):
    return tuple(parse_input(text) for text in texts)


def choose(parameters, given=(), data=(), *, static=False):
    return choose_inputs(parameters, given, data, float_dtype="float32", static_batch=static)


ONE = Parameters(("features",), frozenset({"features"}))
TWO = Parameters(("ids", "mask", "flag"), frozenset({"ids", "mask"}))


def test_a_single_array_is_named_after_the_parameter():
    assert choose(ONE, data=of("anything=float64:batch,4")) == of("features=float32:batch,4")


def test_several_come_in_the_order_of_the_parameters():
    data = of("mask=int64:batch,8", "ids=int64:batch,8")
    assert [spec.name for spec in choose(TWO, data=data)] == ["ids", "mask"]


def test_given_inputs_win_over_the_data():
    assert choose(ONE, given=of("features=uint8:1,4"), data=of("x=float32:batch,9")) == of("features=uint8:batch,4")


def test_static_batch():
    assert choose(ONE, given=of("features=float32:8,4"), static=True)[0].dims == (8, 4)
    assert choose(ONE, data=of("features=float32:batch,4"), static=True)[0].dims == (1, 4)


def test_refusals():
    with pytest.raises(ModelError) as nothing:
        choose(ONE)
    assert "--input features=" in nothing.value.hint
    with pytest.raises(DataError) as strangers:
        choose(TWO, data=of("ids=int64:batch,8", "maks=int64:batch,8"))
    assert "maks" in strangers.value.message
    assert "mask" in strangers.value.message
    with pytest.raises(DataError, match="needs mask"):
        choose(TWO, data=of("ids=int64:batch,8", "flag=int64:batch,8"))
    with pytest.raises(ModelError, match="batch at dim 1"):
        choose(ONE, given=of("features=float32:10,batch,4"))


def test_open_parameters():
    assert choose(Parameters((), frozenset(), "names"), data=of("a=int64:batch", "b=int64:batch"))[1].name == "b"
    assert choose(Parameters((), frozenset(), "positions"), data=of("a=int64:batch"))[0].name == "a"
