"""Requests that hold raw samples (texts, image files): in BYTES tensors, or as a person writes them."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from .binary import byte_values
from .faults import BadRequest, NoAnswer
from .media import is_file
from .protocol import (
    InferRequest,
    by_name,
    check_rows,
    identifier,
    in_binary,
    listed,
    parameters,
    read_content,
    timeout,
    wanted_outputs,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .description import Description, RawSide
    from .tensors import Array


def is_raw(content: Mapping[str, Any], raw: RawSide | None) -> bool:
    """Whether a V2 request has raw samples: no model input is BYTES, so one tensor of these says it."""
    given = content.get("inputs")
    if raw is None or not raw.fields or not isinstance(given, list):
        return False
    return any(isinstance(each, dict) and each.get("datatype") == "BYTES" for each in given)


def raw_request(content: Mapping[str, Any], description: Description) -> InferRequest:
    """The request in a V2 object with one BYTES tensor per field.

    Raises:
        BadRequest: names, shapes or values are not those of raw samples.
    """
    raw = _raw(description)
    given = by_name(content.get("inputs"), "inputs")
    _check_names(given, raw)
    samples = {name: _strings(given[name], name, raw.media) for name in raw.fields}
    return _request(samples, description, content)


def plain_request(body: bytes, media: str, description: Description) -> InferRequest:
    """The request of somebody who speaks no protocol: an image file, or a JSON object with the fields of samples.

    Each field is one value or a list of them; an image in JSON is base64, alone or as {"b64": …}.

    Raises:
        BadRequest: it is neither, or fields are missing, unknown or of different lengths.
    """
    raw = description.raw
    if raw is None or not raw.fields:
        raise BadRequest(f"this model takes tensors only: POST /v2/models/{description.name}/infer")
    if is_file(media):
        if raw.media != "image" or len(raw.fields) > 1:
            raise BadRequest(f"this model takes no image file but JSON with {listed(raw.fields)}")
        if not body:
            raise BadRequest("the body is empty; it should be an image file")
        return _request({raw.fields[0]: [body]}, description, {})
    try:
        content = read_content(body)
    except BadRequest as error:
        hint = "; send an image file with 'Content-Type: image/jpeg'" if raw.media == "image" else ""
        raise BadRequest(f"{error}{hint}") from None
    _check_names(content, raw)
    several = {isinstance(value, list) for value in content.values()}
    if len(several) > 1:
        raise BadRequest(f"{listed(raw.fields)} must all be one value or all be lists")
    lists = content if several == {True} else {name: [value] for name, value in content.items()}
    samples = {
        name: [_value(each, name, row, raw.media) for row, each in enumerate(lists[name])] for name in raw.fields
    }
    return _request(samples, description, {})


def plain_response(request: InferRequest, outputs: Mapping[str, Array], columns: Mapping[str, list[Any]]) -> bytes:
    """One object per sample, with the columns; with the model's outputs where there are none.

    Raises:
        NoAnswer: a value is one that JSON cannot carry, or is not of one sample.
    """
    rows = len(next(iter(request.samples.values())))
    for name in () if request.columns else request.outputs:
        if outputs[name].shape[:1] != (rows,):
            raise NoAnswer(f"output {name!r} has no row per sample: POST /v2/models/NAME/infer")
    chosen = columns if request.columns else {name: outputs[name].tolist() for name in request.outputs}
    predictions = [{name: values[row] for name, values in chosen.items()} for row in range(rows)]
    try:
        return json.dumps({"predictions": predictions}, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise NoAnswer(f"the answer cannot be written as JSON: {error}") from error


def _request(samples: dict[str, list[Any]], description: Description, content: Mapping[str, Any]) -> InferRequest:
    raw = _raw(description)
    counts = {name: len(values) for name, values in samples.items()}
    rows = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise BadRequest(f"{listed(counts)} have different numbers of samples: {', '.join(map(str, counts.values()))}")
    if rows < 1:
        raise BadRequest("there are no samples")
    most = description.limits.max_rows
    fixed = description.inputs[0].dims[0] if most is None else None
    if most is not None:
        check_rows(rows, most)
    elif isinstance(fixed, int) and rows != fixed:
        raise BadRequest(f"there are {rows} samples; this model takes exactly {fixed} in one request")
    own = tuple(tensor.name for tensor in description.outputs)
    # Where a column and an output share a name, raw requests get the column and tensor requests the output.
    wanted = wanted_outputs(content, tuple(dict.fromkeys((*raw.columns, *own)))) or tuple(raw.columns) or own
    return InferRequest(
        id=identifier(content),
        inputs={},
        outputs=wanted,
        rows=1 if most is None else rows,
        samples=samples,
        columns=tuple(name for name in wanted if name in raw.columns),
        binary=in_binary(content, wanted),
        timeout_us=timeout(content),
    )


def _raw(description: Description) -> RawSide:
    assert description.raw is not None
    return description.raw


def _check_names(given: Mapping[str, Any], raw: RawSide) -> None:
    for name in given:
        if name not in raw.fields:
            raise BadRequest(f"unknown field {name!r}; a raw sample has {listed(raw.fields)}")
    for name in raw.fields:
        if name not in given:
            raise BadRequest(f"{name!r} is missing; a raw sample has {listed(raw.fields)}")


def _strings(tensor: Mapping[str, Any], name: str, media: str) -> list[Any]:
    """The values of a BYTES tensor [n] or [n, 1]."""
    if tensor.get("datatype") != "BYTES":
        raise BadRequest(f"input {name!r} must have datatype BYTES, as the other raw inputs have")
    shape, data = tensor.get("shape"), tensor.get("data")
    if (
        not isinstance(shape, list)
        or any(type(dim) is not int or dim < 1 for dim in shape)
        or not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))  # noqa: PLR2004 - samples, one value
    ):
        raise BadRequest(f"raw input {name!r} must have shape [n] or [n, 1]")
    given = parameters(tensor, repr(name)).get("content_type")
    expected = "base64" if media == "image" else "str"
    if given not in (None, expected):
        raise BadRequest(f"input {name!r} has content type {given!r}; here it can only be {expected!r}")
    if isinstance(data, memoryview):
        values = byte_values(data, name, shape[0])
        # Bytes need no base64 around them, and have it where it is said.
        if media == "image" and given is None:
            return list(values)
        return [_value(_text(each, name, row), name, row, media) for row, each in enumerate(values)]
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r} must have its values in a list, 'data'")
    if all(isinstance(each, list) and len(each) == 1 for each in data):
        data = [each[0] for each in data]
    if len(data) != shape[0]:
        raise BadRequest(f"input {name!r} has shape {shape}, but {len(data)} values")
    return [_value(each, name, row, media) for row, each in enumerate(data)]


def _text(value: bytes, name: str, row: int) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{name!r} of sample {row + 1} is no UTF-8: {error}") from None


def _value(value: Any, name: str, row: int, media: str) -> str | bytes:
    if media == "image" and isinstance(value, dict) and value.keys() == {"b64"}:
        value = value["b64"]
    if not isinstance(value, str):
        raise BadRequest(f"{name!r} of sample {row + 1} is no string")
    try:
        if media == "image":
            # Files wrapped at 76 characters are base64 too.
            return base64.b64decode("".join(value.split()), validate=True)
        value.encode()
    except (binascii.Error, ValueError) as error:
        what = "no base64" if media == "image" and not isinstance(error, UnicodeEncodeError) else "no valid Unicode"
        raise BadRequest(f"{name!r} of sample {row + 1} is {what}: {error}") from None
    return value
