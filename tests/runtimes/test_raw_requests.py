"""Properties of the reader of raw requests: any JSON, any bytes, are read or refused with words."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_v2_protocol import JSON, described

from mlpack.pipeline import PipelineError, datatypes, packed
from mlpack.runtimes.templates.fastapi.server.answers import Result, build_response
from mlpack.runtimes.templates.fastapi.server.description import RawSide, Tensor
from mlpack.runtimes.templates.fastapi.server.faults import BadRequest, NoAnswer
from mlpack.runtimes.templates.fastapi.server.raw_requests import is_raw, plain_request, plain_response, raw_request

TENSOR = Tensor("x", "FP32", ("batch", 2))
SIDES = {
    "text": RawSide(("text", "text_pair"), "text", {"label": "BYTES", "y": "FP32"}),
    "image": RawSide(("image",), "image", {}),
}
VALUES = st.text(max_size=8) | st.fixed_dictionaries({"b64": st.text(max_size=8)}) | JSON
INPUT = st.fixed_dictionaries(
    {"name": st.sampled_from(["text", "text_pair", "image"]), "datatype": st.just("BYTES")},
    optional={
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": st.lists(VALUES, max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"content_type": st.sampled_from(["base64", "str"])}) | JSON,
    },
)


def model(media, max_rows=8):
    plain = described(TENSOR, max_rows=max_rows)
    return type(plain)(**{**vars(plain), "raw": SIDES[media]})


@settings(max_examples=300)
@given(st.lists(INPUT, min_size=1, max_size=3), JSON, st.sampled_from(["text", "image"]))
def test_any_raw_tensors_are_read_or_refused_with_words(inputs, outputs, media):
    content = {"inputs": inputs, "outputs": outputs}
    assert is_raw(content, SIDES[media])
    try:
        read = raw_request(content, model(media))
    except BadRequest as error:
        said = str(error)
    else:
        said = "read"
        assert set(read.samples) == set(SIDES[media].fields)
        assert {len(values) for values in read.samples.values()} == {read.rows}
        kind = str if media == "text" else bytes
        assert all(isinstance(each, kind) for values in read.samples.values() for each in values)
    assert said


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["text", "text_pair", "image", "x"]), VALUES | st.lists(VALUES, max_size=3)) | JSON,
    st.sampled_from(["text", "image"]),
)
def test_any_plain_json_is_read_or_refused_with_words(content, media):
    try:
        read = plain_request(json.dumps(content).encode(), "application/json", model(media))
    except BadRequest as error:
        said = str(error)
    else:
        said = "read"
        assert 1 <= read.rows <= 8
    assert said


@given(st.binary(min_size=1, max_size=60))
def test_an_image_arrives_bit_for_bit(content):
    text = base64.encodebytes(content).decode()
    described_ = model("image")
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    for read in (
        raw_request({"inputs": [tensor]}, described_),
        plain_request(json.dumps({"image": {"b64": text}}).encode(), "application/json", described_),
        plain_request(content, "image/png", described_),
    ):
        assert read.samples == {"image": [content]}


def test_tensors_are_not_raw_and_a_pipeline_without_fields_takes_none():
    tensor = {"inputs": [{"name": "image", "datatype": "FP32"}]}
    assert not is_raw(tensor, SIDES["image"])
    assert not is_raw({"inputs": [{"name": "image", "datatype": "BYTES"}]}, None)
    assert not is_raw({"inputs": [{"name": "image", "datatype": "BYTES"}]}, RawSide((), "text", {"label": "BYTES"}))


def test_a_static_batch_is_told():
    plain = described(Tensor("x", "FP32", (3, 2)), max_rows=None)
    fixed = type(plain)(**{**vars(plain), "raw": SIDES["text"]})
    asked = {"text": ["a", "b"], "text_pair": ["c", "d"]}
    with pytest.raises(BadRequest, match="there are 2 samples; this model takes exactly 3"):
        plain_request(json.dumps(asked).encode(), "", fixed)
    asked = {name: [*values, "e"] for name, values in asked.items()}
    assert plain_request(json.dumps(asked).encode(), "", fixed).rows == 1


def test_a_column_hides_an_output_of_its_name_from_raw_requests():
    asked = {"text": "a", "text_pair": "b"}
    read = plain_request(json.dumps(asked).encode(), "", model("text"))
    assert read.outputs == read.columns == ("label", "y")
    answer = json.loads(build_response(read, Result({}, {"label": ["a"], "y": [0.5]}), model("text")).body)
    assert answer["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        {"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]},
    ]


def test_an_answer_that_json_cannot_carry_is_refused():
    read = plain_request(json.dumps({"text": "a", "text_pair": "b"}).encode(), "", model("text"))
    for value in (float("nan"), {1, 2}):
        with pytest.raises(NoAnswer, match="cannot be written as JSON"):
            plain_response(read, {}, {"label": ["a"], "y": [value]})


ANSWERS = [
    {"whole": 1, "number": 1, "text": "a", "list": [1], "flag": True, "mixed": 1, "nothing": None},
    {"whole": -2, "number": 0.5, "text": "b", "list": [], "flag": False, "mixed": "x", "nothing": "y"},
]


def test_datatypes_hold_every_golden_answer():
    found = datatypes(ANSWERS[0], ANSWERS)
    assert found == {
        "whole": "INT64", "number": "FP32", "text": "BYTES", "list": "BYTES", "flag": "BOOL", "mixed": "BYTES",
        "nothing": "BYTES",
    }  # fmt: skip
    for name, datatype in found.items():
        values = [each[name] for each in ANSWERS]
        for made, value in zip(packed(name, datatype, values), values, strict=True):
            assert made == value if isinstance(value, str) or datatype != "BYTES" else json.loads(made) == value
    assert datatypes(["label", "score", "spans"], []) == {"label": "BYTES", "score": "FP32", "spans": "BYTES"}


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT64", 0.5), ("INT64", True), ("INT64", 2**63), ("FP32", "a"), ("FP32", float("inf")), ("FP32", 1e39),
     ("FP32", None), ("BOOL", 1), ("BYTES", float("nan"))],
)  # fmt: skip
def test_a_value_that_its_datatype_cannot_hold_is_refused(datatype, value):
    with pytest.raises(PipelineError, match="'x'") as caught:
        packed("x", datatype, [value])
    assert caught.value.row == 0
