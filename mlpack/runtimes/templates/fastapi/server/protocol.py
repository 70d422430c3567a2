"""The V2 inference protocol: reads requests of tensors strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from .binary import HEADER, attach, split
from .faults import BadRequest
from .tensors import read_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .description import Description
    from .tensors import Array


# What other servers do for these is not done here; an answer as if they were not there would be another one.
_REFUSED = frozenset({"classification", "sequence_id", "shared_memory_region"})


@dataclass(frozen=True)
class InferRequest:
    """A valid request. `rows` is the size of its batch, or 1 where the model has no free batch dim.

    A raw request has `samples`, a list per field, instead of `inputs`. Of `outputs`, the wanted names, `columns`
    are those that the pipeline makes of the model's outputs, and `binary` those that are answered as bytes.
    `timeout_us`: how long the client waits, where it says so.
    """

    id: str | None
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    rows: int
    samples: dict[str, list[Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()
    timeout_us: int | None = None


def read_content(body: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON object in a body; the 'data' of inputs that come as bytes behind it are views of these.

    Raises:
        BadRequest: it is none, or its parts are not as long as they are said to be.
    """
    head, tail = split(body, (headers or {}).get(HEADER.lower()))
    content = _json(head)
    if not isinstance(content, dict):
        raise BadRequest("the body must be a JSON object")
    attach(content.get("inputs"), tail)
    return content


def tensor_request(content: dict[str, Any], description: Description) -> InferRequest:
    """The request in an object with the model's own inputs.

    Raises:
        BadRequest: names, datatypes, shapes or values do not fit the model.
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
    inputs = {name: read_tensor(given[name], tensor, symbols) for name, tensor in known.items()}
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
        binary=in_binary(content, wanted),
        timeout_us=timeout(content),
    )


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
        BadRequest: they are not in the protocol's form, or ask for what is not done here.
    """
    if not isinstance(value, list) or not value:
        raise BadRequest(f"'{side}' must be a list of at least one tensor")
    tensors: dict[str, dict[str, Any]] = {}
    for each in value:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise BadRequest(f"each of '{side}' must be an object with a 'name'")
        # To want an output twice is to want it.
        if each["name"] in tensors and side == "inputs":
            raise BadRequest(f"{each['name']!r} is given twice in '{side}'")
        parameters(each, repr(each["name"]))
        tensors[each["name"]] = each
    return tensors


def parameters(owner: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    """The parameters of a tensor or of a request; empty where it has none.

    Raises:
        BadRequest: they are no object, or ask for what is not done here.
    """
    given = owner.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadRequest(f"the parameters of {whose} must be an object")
    for name in sorted(_REFUSED & given.keys()):
        raise BadRequest(f"{whose} has the parameter {name!r}, which this server does not have")
    return given


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


def in_binary(content: Mapping[str, Any], wanted: tuple[str, ...]) -> frozenset[str]:
    """Which of the wanted outputs are to come as bytes: each says it for itself, else the request for all.

    Raises:
        BadRequest: one says neither yes nor no.
    """
    every = _flag(parameters(content, "the request"), "binary_data_output", "the request", otherwise=False)
    asked = {} if content.get("outputs") is None else by_name(content["outputs"], "outputs")
    return frozenset(
        name
        for name in wanted
        if _flag(parameters(asked.get(name, {}), repr(name)), "binary_data", repr(name), otherwise=every)
    )


def _flag(given: Mapping[str, Any], name: str, whose: str, *, otherwise: bool) -> bool:
    value = given.get(name, otherwise)
    if not isinstance(value, bool):
        raise BadRequest(f"the parameter {name!r} of {whose} must be true or false")
    return value


def timeout(content: Mapping[str, Any]) -> int | None:
    """Microseconds after which the client wants no answer any more; None where it does not say, or says 0.

    Raises:
        BadRequest: they are no number of these.
    """
    value = parameters(content, "the request").get("timeout", 0)
    if type(value) is not int or value < 0:
        raise BadRequest("the parameter 'timeout' must be a whole number of microseconds")
    return value or None


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


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(repr(name) for name in names)
