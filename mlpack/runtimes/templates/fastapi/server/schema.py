"""The OpenAPI document of /openapi.json, made from the model's own specs; pages for it would load foreign scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .access import OPEN
from .answers import BYTES, JSON
from .description import DATATYPES

if TYPE_CHECKING:
    from .description import Description, Tensor

Schema = dict[str, Any]

_ERRORS = {
    "400": "the request does not fit the model, or is none",
    "404": "another model's name or version",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "415": "the body is in a form that is not read here",
    "422": "a sample cannot be taken, or its answer cannot be told in this form",
    "429": "the queue is full, or this client asks too often; Retry-After says when to come again",
    "500": "the model failed on this input",
    "503": "the server is shutting down",
    "504": "no answer in time",
}
_PARAMETERS = (
    "'timeout': microseconds after which no answer is wanted any more. 'binary_data_output': outputs as bytes behind "
    "the JSON. Inputs may come so too: 'parameters': {'binary_data_size': N} instead of 'data', the bytes behind the "
    "JSON, and the header Inference-Header-Content-Length with the length of the JSON."
)


def openapi(description: Description, *, needs_token: bool) -> Schema:
    """The document."""
    models = "/v2/models/{name}"
    doors: dict[str, Schema] = {
        "/v2": {"get": _operation("the server, and its extensions", _object("name", "version", "extensions"))},
        "/v2/health/live": {"get": _operation("whether the process lives", _object("live"))},
        "/v2/health/ready": {"get": _operation("whether it takes requests", _object("ready"), ["503"])},
        "/v2/repository/index": {
            "post": _operation("the models", {"type": "array", "items": _object("name", "state")})
        },
        "/metrics": {"get": _operation("Prometheus metrics", {"type": "string"}, media="text/plain")},
        "/openapi.json": {"get": _operation("this document", _object("openapi", "info", "paths"))},
    }
    for place in (models, f"{models}/versions/{{version}}"):
        named: Schema = {"parameters": _named(description, place)}
        metadata = _object("name", "versions", "platform", "inputs", "outputs")
        doors[place] = {**named, "get": _operation("inputs and outputs", metadata, ["404"])}
        doors[f"{place}/ready"] = {**named, "get": _operation("whether it is ready", _object("ready"), ["404", "503"])}
        doors[f"{place}/infer"] = {**named, "post": _infer(description)}
    if description.raw and description.raw.fields:
        doors["/predict"] = {"post": _predict(description)}
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": description.name, "version": description.version},
        "paths": doors,
        "components": {"schemas": {"Error": {**_object("error"), "properties": {"error": {"type": "string"}}}}},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        for path, door in doors.items():
            for method in door.keys() & {"get", "post"}:
                if path in OPEN:
                    door[method]["security"] = []
                else:
                    door[method]["responses"]["401"] = _error("the token is missing or another one")
    return document


def _infer(description: Description) -> Schema:
    raw = description.raw
    bodies = [_request(description, _inputs(description), [tensor.name for tensor in description.outputs])]
    if raw and raw.fields:
        names = [*raw.columns, *(tensor.name for tensor in description.outputs)]
        bodies.append(_request(description, _raw_inputs(description), list(dict.fromkeys(names))))
    answered = {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": description.name},
            "model_version": {"const": description.version},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _object("name", "datatype", "shape")},
        },
    }
    operation = _operation("the model's answer", answered, [*_ERRORS])
    operation["responses"]["200"]["content"][BYTES] = {"schema": {"type": "string", "format": "binary"}}
    return {**operation, **_body(bodies[0] if len(bodies) == 1 else {"anyOf": bodies})}


def _predict(description: Description) -> Schema:
    raw = description.raw
    assert raw is not None
    value = _sample(raw.media)
    several = {"type": "array", "items": value, "minItems": 1}
    if description.limits.max_rows:
        several["maxItems"] = description.limits.max_rows
    shapes = [
        {
            "type": "object",
            "required": list(raw.fields),
            "properties": dict.fromkeys(raw.fields, each),
            "additionalProperties": False,
        }
        # Lists of several fields have to be of one length, which no schema says.
        for each in ([value, several] if len(raw.fields) == 1 else [value])
    ]
    answered = {**_object("predictions"), "properties": {"predictions": {"type": "array", "items": {"type": "object"}}}}
    return {**_operation("answers to raw samples", answered, [*_ERRORS]), **_body({"anyOf": shapes})}


def _request(description: Description, inputs: Schema, outputs: list[str]) -> Schema:
    binary = {"type": ["object", "null"], "properties": {"binary_data": {"type": "boolean"}}}
    wanted = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": outputs}, "parameters": binary},
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": inputs,
            "outputs": {"type": ["array", "null"], "items": wanted, "minItems": 1},
            "parameters": {
                "type": ["object", "null"],
                "properties": {"binary_data_output": {"type": "boolean"}},
                "description": _PARAMETERS,
            },
        },
        "title": description.name,
    }


def _inputs(description: Description) -> Schema:
    """The tensors of one request: with each number of rows, where that alone decides how long their data is."""
    tensors = description.inputs
    rows = description.limits.max_rows
    rest = [dim for tensor in tensors for dim in (tensor.dims[1:] if rows else tensor.dims)]
    if any(isinstance(dim, str) for dim in rest):
        return _together([_tensor(tensor, None) for tensor in tensors])
    ways = [
        _together([_tensor(tensor, [count, *tensor.dims[1:]] if count else [*tensor.dims]) for tensor in tensors])
        for count in (range(1, rows + 1) if rows else [0])
    ]
    return ways[0] if len(ways) == 1 else {"anyOf": ways}


def _raw_inputs(description: Description) -> Schema:
    raw = description.raw
    assert raw is not None
    ways = [
        _together([
            {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"const": name},
                    "datatype": {"const": "BYTES"},
                    "shape": {"enum": [[count], [count, 1]]},
                    "data": _list(_sample(raw.media), count),
                },
            }
            for name in raw.fields
        ])
        for count in range(1, (description.limits.max_rows or 1) + 1)
    ]  # fmt: skip
    return ways[0] if len(ways) == 1 else {"anyOf": ways}


def _together(tensors: list[Schema]) -> Schema:
    if len(tensors) == 1:
        return _list(tensors[0], 1)
    return _in_order(tensors)


def _tensor(tensor: Tensor, shape: list[Any] | None) -> Schema:
    """An input as JSON, flat; lists in lists are taken too."""
    dims = [{"const": dim} if isinstance(dim, int) else {"type": "integer", "minimum": 1} for dim in tensor.dims]
    value = _value(tensor.datatype)
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": tensor.name},
            "datatype": {"const": tensor.datatype},
            "shape": {"const": shape} if shape else _in_order(dims),
            "data": _list(value, int(np.prod(shape))) if shape else {"type": "array", "items": value, "minItems": 1},
        },
    }


def _value(datatype: str) -> Schema:
    dtype = DATATYPES[datatype]
    if dtype.kind == "b":
        return {"type": "boolean"}
    bounds = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    number: Any = float if dtype.kind == "f" else int
    kind = "number" if dtype.kind == "f" else "integer"
    return {"type": kind, "minimum": number(bounds.min), "maximum": number(bounds.max)}


def _sample(media: str) -> Schema:
    """One raw sample's field. Texts of nothing but spaces are refused."""
    return {"type": "string", **({"contentEncoding": "base64"} if media == "image" else {"pattern": r"\S"})}


def _in_order(items: list[Schema]) -> Schema:
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _list(items: Schema, count: int) -> Schema:
    return {"type": "array", "items": items, "minItems": count, "maxItems": count}


def _body(schema: Schema) -> Schema:
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _object(*keys: str) -> Schema:
    return {"type": "object", "required": list(keys)}


def _named(description: Description, path: str) -> list[Schema]:
    known = {"name": description.name, "version": description.version}
    return [
        {"name": key, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}}
        for key, value in known.items()
        if f"{{{key}}}" in path
    ]


def _operation(what: str, answered: Schema, errors: list[str] | None = None, media: str = JSON) -> Schema:
    good = {"description": what, "content": {media: {"schema": answered}}}
    return {"summary": what, "responses": {"200": good, **{each: _error(_ERRORS[each]) for each in errors or ()}}}


def _error(what: str) -> Schema:
    return {"description": what, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
