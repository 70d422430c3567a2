"""The bodies that each server is asked with, and the values in its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import serving_load_client as lean

from mlpack.measure.clients.v2_http import V2Http

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Form = Literal["json", "binary", "samples"]


def requests(form: Form, path: str, model: str, rows: Iterable[Mapping[str, np.ndarray]]) -> list[bytes]:
    """One request for each row: V2 in JSON or in binary, or one array of all inputs in plain JSON."""
    return [lean.post(path, *_body(form, model, arrays)) for arrays in rows]


def _body(form: Form, model: str, arrays: Mapping[str, np.ndarray]) -> tuple[bytes, dict[str, str]]:
    if form == "samples":
        samples = np.stack([array[0] for array in arrays.values()])[None]
        return json.dumps({"samples": samples.tolist()}).encode(), {"Content-Type": "application/json"}
    client = V2Http("", 0.0)
    client.form = form
    _, body, headers = client.request(model, arrays)
    return body, headers


def values(form: Form, answer: bytes) -> np.ndarray:
    """The first output."""
    told, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    if form == "binary":
        return np.frombuffer(answer[end:], np.float32)
    return np.array(_first(told), np.float64).ravel()


def _first(told: Any) -> Any:
    outputs = told["outputs"] if isinstance(told, dict) else told
    return outputs[0]["data"] if isinstance(outputs[0], dict) else outputs
