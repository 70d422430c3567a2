"""Properties of the V2 protocol's reader and writer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlpack.runtimes.templates.fastapi.server.answers import Result, build_response
from mlpack.runtimes.templates.fastapi.server.description import (
    DATATYPES,
    Description,
    Limits,
    Options,
    Tensor,
)
from mlpack.runtimes.templates.fastapi.server.faults import BadRequest, NoAnswer
from mlpack.runtimes.templates.fastapi.server.protocol import InferRequest, read_content, tensor_request

MAX_ROWS = 8


def described(*inputs: Tensor, max_rows: int | None = MAX_ROWS) -> Description:
    return Description(
        name="m",
        version="1",
        digest="d",
        backend="onnxruntime",
        entry="model/model.onnx",
        options=Options(threads=1, precision="float32", graph_optimizations="all", waiting="spin"),
        limits=Limits("merged", max_rows, 1.0, 8, 1, 1000),
        inputs=inputs,
        outputs=(Tensor("y", "FP32", ("batch", 3)), Tensor("z", "INT64", ("batch",))),
    )


def parse_request(body: bytes, description: Description) -> InferRequest:
    return tensor_request(read_content(body), description)


def written(array: np.ndarray, datatype: str, data: object = None, **more: object) -> bytes:
    tensor = {"name": "x", "datatype": datatype, "shape": list(array.shape), "data": data}
    tensor["data"] = array.ravel().tolist() if data is None else data
    return json.dumps({"inputs": [tensor], **more}).encode()


@st.composite
def tensors(draw):
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    dtype = DATATYPES[datatype]
    shape = (draw(st.integers(1, MAX_ROWS)), *draw(st.lists(st.integers(1, 3), max_size=3)))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return datatype, draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **finite)))


@given(tensors(), st.booleans())
@example(("UINT64", np.array([0, 2**63], np.uint64)), False)
@example(("UINT64", np.array([[1], [2**64 - 1]], np.uint64)), True)
def test_every_finite_array_arrives_bit_for_bit(tensor, is_nested):
    datatype, array = tensor
    spec = Tensor("x", datatype, ("batch", *array.shape[1:]))
    read = parse_request(written(array, datatype, array.tolist() if is_nested else None), described(spec))
    assert read.rows == len(array)
    assert read.inputs["x"].dtype == array.dtype
    assert read.inputs["x"].tobytes() == array.tobytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "datatype": st.sampled_from(["FP32", "INT8"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data": st.lists(st.floats() | st.integers(), max_size=8) | JSON,
        "parameters": JSON,
    },
)


@settings(max_examples=400)
@given(
    st.fixed_dictionaries({}, optional={"inputs": st.lists(FIELDS, max_size=3) | JSON, "outputs": JSON, "id": JSON})
    | JSON,
    st.sampled_from(["FP32", "INT8", "BOOL"]),
)
def test_any_json_is_read_or_refused_with_words(content, datatype):
    body = json.dumps(content).encode()
    try:
        read = parse_request(body, described(Tensor("x", datatype, ("batch", 2))))
    except BadRequest as error:
        said = str(error)
    else:
        said = "read"
        assert read.inputs["x"].shape[1:] == (2,)
        assert np.isfinite(read.inputs["x"].astype(float)).all()
    assert said


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_words(body):
    with pytest.raises(BadRequest):
        parse_request(body, described(Tensor("x", "FP32", ("batch", 2))))


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"inputs":' * 50_000])
def test_deep_nesting_is_refused(body):
    with pytest.raises(BadRequest, match=r"nested|not valid JSON"):
        parse_request(body, described(Tensor("x", "FP32", ("batch", 2))))


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("INT8", [128, 0], "INT8 cannot hold"),
        ("INT8", [-129, 0], "INT8 cannot hold"),
        ("UINT8", [-1, 0], "UINT8 cannot hold"),
        ("UINT64", [-1, 2**63], "UINT64"),
        ("INT64", [10**30, 0], "INT64"),
        ("INT32", [1.0, 2.0], "does not hold INT32"),
        ("INT32", [True, False], "does not hold INT32"),
        ("BOOL", [0, 1], "does not hold BOOL"),
        ("FP16", [65520.0, 0], "FP16 cannot hold"),
        ("FP64", ["1", "2"], "does not hold FP64"),
        ("FP32", [None, 1.0], "does not hold FP32"),
        ("FP32", [{}, 1.0], "does not hold FP32"),
    ],
)
def test_values_outside_the_datatype_are_refused(datatype, data, said):
    with pytest.raises(BadRequest, match=said):
        parse_request(written(np.zeros((1, 2)), datatype, data), described(Tensor("x", datatype, ("batch", 2))))


def test_a_symbol_has_one_size_in_all_inputs():
    both = described(Tensor("x", "FP32", ("batch", "n")), Tensor("m", "BOOL", ("batch", "n")))
    request = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
            {"name": "m", "datatype": "BOOL", "shape": [1, 3], "data": [True] * 3},
        ]
    }
    with pytest.raises(BadRequest, match="'n' is 2 in input 'x' but 3 in input 'm'"):
        parse_request(json.dumps(request).encode(), both)
    with pytest.raises(BadRequest, match="input 'm' is missing"):
        parse_request(json.dumps({"inputs": request["inputs"][:1]}).encode(), both)


def test_the_response_keeps_values_and_refuses_what_json_cannot_say():
    model = described(Tensor("x", "FP32", ("batch", 2)))
    request = parse_request(written(np.zeros((1, 2)), "FP32", id="a"), model)
    logits = np.array([[0.1, 1e-38, -3e38]], np.float32)
    answer = json.loads(build_response(request, Result({"y": logits, "z": np.array([2**60])}), model).body)
    assert answer["id"] == "a"
    assert np.array(answer["outputs"][0]["data"], np.float32).tobytes() == logits.tobytes()
    assert answer["outputs"][1] == {"name": "z", "datatype": "INT64", "shape": [1], "data": [2**60]}
    with pytest.raises(NoAnswer, match="output 'y' has NaN"):
        build_response(request, Result({"y": np.array([[np.nan]]), "z": np.array([1])}), model)


@pytest.mark.parametrize("data", [[0, 2**64], [-1, 2**63], [None, 1], [1.5, 2**63]])
def test_whole_numbers_that_uint64_cannot_hold_are_refused(data):
    content = written(np.zeros(2, np.uint64), "UINT64", data)
    with pytest.raises(BadRequest, match="UINT64"):
        parse_request(content, described(Tensor("x", "UINT64", ("batch",))))
