"""The V2 inference protocol over HTTP: tensors as JSON, or in binary where the server has that extension."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from mlpack.errors import MachineError, MlpackError, UsageError
from mlpack.measure.clients.client import (
    NAMES,
    Failed,
    Form,
    Served,
    TooLate,
    UnknownModel,
    input_spec,
    lacking,
    one_line,
)
from mlpack.measure.server_time import PARTS, Spent

if TYPE_CHECKING:
    from collections.abc import Mapping

_OK = 200
_BINARY = "binary_tensor_data"
_HEAD = "Inference-Header-Content-Length"
# Servers close idle connections (uvicorn after 5 s); a request on one that is just being closed would fail.
_KEEP_ALIVE_S = 2.0
_QUESTION_S = 10.0
_TRITON_PARTS = {
    "queue": "queue", "compute_input": "preprocess", "compute_infer": "compute", "compute_output": "postprocess",
}  # fmt: skip
# The FastAPI package tells what its pipeline takes of raw samples apart from reading and writing.
_PIPELINE_PARTS = {"prepare": "preprocess", "finish": "postprocess"}
Request = tuple[str, bytes, dict[str, str]]
Reply = tuple[bytes, int]


class V2Http:
    """A client of `http://host:port`. A request gets a free connection, or a new one where all are busy.

    AUTH_TOKEN is sent where the environment has it, as by the client that packages carry.
    """

    form: Form = "json"

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        token = os.environ.get("AUTH_TOKEN")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"} if token else None,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def server(self) -> str:
        """Name and version of the server; notes whether it takes binary tensors."""
        status, content = await self._ask("GET", "/v2")
        told = _json(content)
        if status != _OK or not isinstance(told, dict) or "name" not in told:
            raise self._foreign(f"GET /v2 gives {_message(status, content)}")
        if _BINARY in (told.get("extensions") or ()):
            self.form = "binary"
        return f"{told['name']} {told.get('version') or ''}".strip()

    async def ready_models(self) -> tuple[str, ...] | None:
        """The names in the repository index; None where the server has none."""
        status, content = await self._ask("POST", "/v2/repository/index", {"ready": True})
        told = _json(content)
        if status != _OK or not isinstance(told, list):
            return None
        ready = [each["name"] for each in told if isinstance(each, dict) and each.get("state", "READY") == "READY"]
        return tuple(dict.fromkeys(ready))

    async def model(self, name: str) -> Served:
        """The model's metadata."""
        status, content = await self._ask("GET", _path(name))
        told = _json(content)
        if status != _OK or not isinstance(told, dict):
            raise UnknownModel(_message(status, content))
        try:
            versions = told.get("versions") or ()
            return Served(
                name=name,
                version=str(versions[-1]) if versions else "",
                inputs=tuple(
                    input_spec(each["name"], each["datatype"], each["shape"]) for each in told.get("inputs") or ()
                ),
                outputs=tuple(each["name"] for each in told.get("outputs") or ()),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign(f"its metadata of {name} lacks what the protocol wants") from error

    def request(self, model: str, arrays: Mapping[str, np.ndarray]) -> Request:
        """Path, body and headers."""
        raw = b""
        tensors = []
        for name, array in arrays.items():
            tensor: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
            if self.form == "binary":
                raw += np.ascontiguousarray(array).tobytes()
                tensor["parameters"] = {"binary_data_size": array.nbytes}
            else:
                tensor["data"] = array.ravel().tolist()
            tensors.append(tensor)
        content: dict[str, Any] = {"inputs": tensors}
        headers = {"Content-Type": "application/json"}
        if self.form == "binary":
            content["parameters"] = {"binary_data_output": True}
        head = json.dumps(content, separators=(",", ":")).encode()
        if self.form == "binary":
            headers = {"Content-Type": "application/octet-stream", _HEAD: str(len(head))}
        return f"{self._url}{_path(model)}/infer", head + raw, headers

    async def send(self, request: Request) -> Reply:
        """The body, and how much of it is JSON."""
        url, body, headers = request
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                content = await response.read()
                if response.status != _OK:
                    raise Failed(_message(response.status, content))
                return content, int(response.headers.get(_HEAD, len(content)))
        except TimeoutError as error:
            raise TooLate(f"no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientError as error:
            raise Failed(f"the connection broke: {one_line(str(error)) or type(error).__name__}") from error

    def wrong(self, answer: Reply, outputs: tuple[str, ...]) -> str | None:
        """What is wrong with the answer."""
        content, head = answer
        told = _json(content[:head])
        tensors = told.get("outputs") if isinstance(told, dict) else None
        if not isinstance(tensors, list) or not all(isinstance(each, dict) and "name" in each for each in tensors):
            return "the answer is not one of the V2 protocol"
        found = {
            each["name"]: bool(each.get("data")) or (each.get("parameters") or {}).get("binary_data_size", 0) > 0
            for each in tensors
        }
        return lacking(found, outputs)

    async def spent(self, model: str) -> Spent | None:
        """Triton's statistics of the model, else this project's server's metrics."""
        try:
            status, content = await self._ask("GET", f"{_path(model)}/stats")
            told = _json(content)
            if status == _OK and isinstance(told, dict) and told.get("model_stats"):
                return _of_statistics(told["model_stats"])
            status, content = await self._ask("GET", "/metrics")
        except MlpackError:
            return None
        return _of_metrics(content.decode(errors="replace")) if status == _OK else None

    async def _ask(self, verb: str, path: str, content: object = None) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=_QUESTION_S)
        try:
            async with self._session.request(verb, f"{self._url}{path}", json=content, timeout=timeout) as response:
                return response.status, await response.read()
        except (aiohttp.ClientConnectorError, TimeoutError) as error:
            raise MachineError(
                f"nothing answers at {self._url}: {one_line(str(error)) or 'no answer in time'}",
                "start the server, or check host and port",
            ) from error
        except aiohttp.ClientError as error:
            raise self._foreign(f"what answers {verb} {path} is no HTTP") from error

    def _foreign(self, why: str) -> UsageError:
        return UsageError(
            f"{self._url} does not speak the V2 inference protocol over HTTP ({why})",
            "give the address of a V2 server; for its gRPC port: --server grpc://HOST:PORT",
        )


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _message(status: int, content: bytes) -> str:
    told = _json(content)
    said = (
        (told.get("error") or told.get("detail") or "") if isinstance(told, dict) else content.decode(errors="replace")
    )
    return f"HTTP {status}: {one_line(str(said)) or 'no message'}"


def _of_statistics(models: list[dict[str, Any]]) -> Spent:
    sums = [each.get("inference_stats", {}) for each in models]
    seconds = {
        part: sum(each.get(name, {}).get("ns", 0) for each in sums) / 1e9 for name, part in _TRITON_PARTS.items()
    }
    requests = sum(each.get("success", {}).get("count", 0) for each in sums)
    return Spent("the server's statistics", requests, seconds)


def _of_metrics(text: str) -> Spent | None:
    """The sums of `inference_part_seconds`, by its label `part`."""
    seconds: dict[str, float] = {}
    requests = 0.0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                told = sample.labels.get("part", "")
                part = _PIPELINE_PARTS.get(told, told)
                if sample.name == "inference_part_seconds_sum" and part in PARTS:
                    seconds[part] = seconds.get(part, 0.0) + sample.value
                elif sample.name == "inference_part_seconds_count" and part == "compute":
                    requests = sample.value
    except ValueError:
        return None
    return Spent("the server's /metrics", requests, seconds) if seconds else None
