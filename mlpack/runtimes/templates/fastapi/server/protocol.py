"""The V2 inference protocol in JSON: reads requests of tensors strictly and writes responses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .description import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .description import Description, Tensor

Array = np.ndarray[Any, np.dtype[Any]]


class BadRequest(Exception):
    """The request cannot be answered; the message says what is wrong with it."""


@dataclass(frozen=True)
class InferRequest:
    """A valid request. `rows` is the size of its batch, or 1 where the model has no free batch dim.

    A raw request has `samples`, a list per field, instead of `inputs`. Of `outputs`, the wanted names, `columns`
    are those that the pipeline makes of the model's outputs.
    """

    id: str | None
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    rows: int
    samples: dict[str, list[Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def parse_request(body: bytes, description: Description) -> InferRequest:
    """Read the body of an infer request that has tensors.

    Raises:
        BadRequest: it is not JSON, or names, datatypes, shapes or values do not fit the model.
    """
    return tensor_request(read_content(body), description)


def read_content(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        BadRequest: it is none.
    """
    content = _json(body)
    if not isinstance(content, dict):
        raise BadRequest("the body must be a JSON object")
    return content


def tensor_request(content: dict[str, Any], description: Description) -> InferRequest:
    """The request in an object with the model's own inputs.

    Raises:
        BadRequest: as above.
    """
    given = by_name(content.get("inputs"), "inputs")
    known = {tensor.name: tensor for tensor in description.inputs}
    for name in given:
        if name not in known:
            raise BadRequest(f"unknown input {name!r}; the model has {listed(known)}")
    for name in known:
        if name not in given:
            raise BadRequest(f"input {name!r} is missing")
    symbols: dict[str, tuple[int, str]] = {}
    inputs = {name: _array(given[name], tensor, symbols) for name, tensor in known.items()}
    # Columns can need the raw sample, so they answer tensors only where there is no other way to ask.
    raw = description.raw
    made = tuple(raw.columns) if raw and not raw.fields else ()
    own = tuple(tensor.name for tensor in description.outputs)
    wanted = wanted_outputs(content, (*own, *made)) or own
    return InferRequest(
        id=identifier(content),
        inputs=inputs,
        outputs=wanted,
        rows=_rows(inputs, description.limits.max_rows),
        columns=tuple(name for name in wanted if name not in own),
    )


def build_response(
    request: InferRequest,
    outputs: Mapping[str, Array],
    description: Description,
    columns: Mapping[str, list[Any]] | None = None,
) -> bytes:
    """Write the answer to a request: outputs in row-major order, and the columns that it asked for.

    Raises:
        ValueError: an output has NaN or infinity, which JSON cannot carry.
    """
    datatypes = {tensor.name: tensor.datatype for tensor in description.outputs}
    written = []
    for name in request.outputs:
        if name in request.columns:
            assert columns is not None
            assert description.raw is not None
            values = columns[name]
            datatype = description.raw.columns[name]
            written.append({"name": name, "datatype": datatype, "shape": [len(values)], "data": values})
            continue
        array = outputs[name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the model's output {name!r} has NaN or infinity for this input")
        written.append(
            {
                "name": name,
                "datatype": datatypes[name],
                "shape": list(array.shape),
                "data": array.ravel().tolist(),
            }
        )
    answer = {"model_name": description.name, "model_version": description.version, "outputs": written}
    if request.id is not None:
        answer["id"] = request.id
    return json.dumps(answer, separators=(",", ":")).encode()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def identifier(content: Mapping[str, Any]) -> str | None:
    """The request's own name for itself.

    Raises:
        BadRequest: it is no string.
    """
    given = content.get("id")
    if given is not None and not isinstance(given, str):
        raise BadRequest("'id' must be a string")
    return given


def by_name(value: Any, side: str) -> dict[str, dict[str, Any]]:
    """The tensors of one side of a request by name.

    Raises:
        BadRequest: they are not in the protocol's form.
    """
    if not isinstance(value, list) or not value:
        raise BadRequest(f"'{side}' must be a list of at least one tensor")
    tensors: dict[str, dict[str, Any]] = {}
    for each in value:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise BadRequest(f"each of '{side}' must be an object with a 'name'")
        if each["name"] in tensors:
            raise BadRequest(f"{each['name']!r} is given twice in '{side}'")
        parameters = each.get("parameters")
        if isinstance(parameters, dict) and {"binary_data_size", "binary_data"} & parameters.keys():
            raise BadRequest(f"{each['name']!r} asks for binary data; this server speaks JSON only")
        tensors[each["name"]] = each
    return tensors


def wanted_outputs(content: Mapping[str, Any], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a request's `outputs`; empty where it does not choose.

    Raises:
        BadRequest: one is not among those that are known here.
    """
    if content.get("outputs") is None:
        return ()
    wanted = tuple(by_name(content["outputs"], "outputs"))
    for name in wanted:
        if name not in known:
            raise BadRequest(f"unknown output {name!r}; the model has {listed(known)}")
    return wanted


def _rows(inputs: Mapping[str, Array], max_rows: int | None) -> int:
    if max_rows is None:
        return 1
    rows = int(next(iter(inputs.values())).shape[0])
    check_rows(rows, max_rows)
    return rows


def check_rows(rows: int, max_rows: int) -> None:
    """Refuse a batch that is too large.

    Raises:
        BadRequest: it is.
    """
    if rows > max_rows:
        raise BadRequest(f"the batch has {rows} rows; this server takes at most {max_rows} in one request")


def _array(given: dict[str, Any], tensor: Tensor, symbols: dict[str, tuple[int, str]]) -> Array:
    if given.get("datatype") != tensor.datatype:
        raise BadRequest(f"input {tensor.name!r} must have datatype {tensor.datatype}")
    shape = _shape(given.get("shape"), tensor, symbols)
    data = given.get("data")
    if not isinstance(data, list):
        raise BadRequest(f"input {tensor.name!r} must have its values in a list, 'data'")
    try:
        values = _exact(data, np.array(data), tensor)
    except (ValueError, OverflowError, RecursionError):
        raise BadRequest(f"the data of input {tensor.name!r} is ragged or not of numbers") from None
    count = math.prod(shape)
    if values.shape not in {(count,), shape}:
        raise BadRequest(
            f"the data of input {tensor.name!r} has shape {list(values.shape)}, "
            f"neither {list(shape)} nor {count} values in one list"
        )
    return _cast(values, tensor).reshape(shape)


def _exact(data: list[Any], values: Array, tensor: Tensor) -> Array:
    """Whole numbers as they came: beside one from 2**63 on, numpy makes floats of all of them."""
    dtype = DATATYPES[tensor.datatype]
    if dtype.kind not in "iu" or values.dtype.kind not in "fO" or not values.size:
        return values
    exact = np.array(data, dtype=object)
    if not all(type(each) is int for each in exact.flat):
        return values
    bounds = np.iinfo(dtype)
    if exact.min() < bounds.min or exact.max() > bounds.max:
        raise BadRequest(f"the data of input {tensor.name!r} has values that {tensor.datatype} cannot hold")
    return exact.astype(dtype)


def _shape(given: Any, tensor: Tensor, symbols: dict[str, tuple[int, str]]) -> tuple[int, ...]:
    expected = list(tensor.dims)
    # A bool is an int to Python, not to the protocol.
    if not isinstance(given, list) or any(type(dim) is not int or dim < 1 for dim in given):
        raise BadRequest(f"the shape of input {tensor.name!r} must be a list of whole numbers of at least 1")
    fits = len(given) == len(expected) and all(
        isinstance(dim, str) or size == dim for size, dim in zip(given, expected, strict=True)
    )
    if not fits:
        raise BadRequest(f"input {tensor.name!r} has shape {given}, expected {_shown(tensor.dims)}")
    for size, dim in zip(given, expected, strict=True):
        if isinstance(dim, str):
            known, owner = symbols.setdefault(dim, (size, tensor.name))
            if known != size:
                raise BadRequest(f"{dim!r} is {known} in input {owner!r} but {size} in input {tensor.name!r}")
    return tuple(given)


def _cast(values: Array, tensor: Tensor) -> Array:
    dtype = DATATYPES[tensor.datatype]
    outside = False
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[dtype.kind]
    if values.dtype.kind not in kinds:
        raise BadRequest(f"the data of input {tensor.name!r} does not hold {tensor.datatype} values")
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        outside = int(values.min()) < bounds.min or int(values.max()) > bounds.max
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if dtype.kind == "f":
        outside = not np.isfinite(cast).all()
    if outside:
        raise BadRequest(f"the data of input {tensor.name!r} has values that {tensor.datatype} cannot hold")
    return cast


def _shown(dims: tuple[int | str, ...]) -> str:
    return f"[{', '.join(str(dim) for dim in dims)}]"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(repr(name) for name in names)
