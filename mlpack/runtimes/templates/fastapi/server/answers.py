"""Writes answers in the V2 protocol: outputs as JSON, or as bytes behind it where the request asks for that."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .binary import HEADER, SIZE, written
from .faults import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .description import Description
    from .protocol import InferRequest
    from .tensors import Array

JSON = "application/json"
BYTES = "application/octet-stream"


@dataclass(frozen=True)
class Written:
    """The body of an answer, and what its headers say of it."""

    body: bytes
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What comes of a request: outputs, the columns that it asked for, and who answered where it was the fallback."""

    outputs: Mapping[str, Array]
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    answered_by: str | None = None


def build_response(request: InferRequest, result: Result, description: Description) -> Written:
    """The answer to a request: outputs in row-major order, and the columns, which are packed as tensors.

    Raises:
        NoAnswer: an output has NaN or infinity, which JSON cannot carry.
    """
    datatypes = {tensor.name: tensor.datatype for tensor in description.outputs}
    tensors = []
    tail = b""
    for name in request.outputs:
        if name in request.columns:
            assert description.raw is not None
            values: Array | list[Any] = result.columns[name]
            tensor: dict[str, Any] = {"name": name, "datatype": description.raw.columns[name], "shape": [len(values)]}
        else:
            values = result.outputs[name]
            tensor = {"name": name, "datatype": datatypes[name], "shape": list(values.shape)}
        if name in request.binary:
            raw = written(values, tensor["datatype"])
            tensor["parameters"] = {SIZE: len(raw)}
            tail += raw
        else:
            tensor["data"] = values if isinstance(values, list) else _numbers(name, values)
        tensors.append(tensor)
    answer: dict[str, Any] = {
        "model_name": description.name,
        "model_version": description.version,
        "outputs": tensors,
    }
    if request.id is not None:
        answer["id"] = request.id
    if result.answered_by:
        answer["parameters"] = {"answered_by": result.answered_by}
    head = json.dumps(answer, separators=(",", ":")).encode()
    return Written(head + tail, BYTES, {HEADER: str(len(head))}) if request.binary else Written(head)


def _numbers(name: str, array: Array) -> list[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NoAnswer(f"the model's output {name!r} has NaN or infinity for this input; binary data can carry it")
    values: list[Any] = array.ravel().tolist()
    return values
