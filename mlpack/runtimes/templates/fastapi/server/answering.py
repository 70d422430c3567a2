"""One request from its body to its answer: read, prepare, run, finish, write; each part timed, each refusal told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from .batching import Batcher, Draining, QueueFull
from .pipelines import AnswerFailed, BadSample, Columns, Pipelines
from .protocol import BadRequest, InferRequest
from .sessions import ModelFailed

if TYPE_CHECKING:
    from .description import Description
    from .metrics import Metrics
    from .sessions import Arrays


@dataclass(frozen=True)
class Form:
    """How a request is read and its answer written."""

    read: Callable[[bytes, Mapping[str, str]], InferRequest]
    write: Callable[[InferRequest, Arrays, Columns], bytes]


class Answering:
    """Everything that an answer needs. `pipelines` is None where the package has no pipeline."""

    def __init__(
        self, description: Description, batcher: Batcher, pipelines: Pipelines | None, metrics: Metrics
    ) -> None:
        self._description = description
        self._batcher = batcher
        self._pipelines = pipelines
        self._metrics = metrics

    def check_model(self, name: str, version: str) -> None:
        """Refuse another model's name.

        Raises:
            HTTPException: 404.
        """
        described = self._description
        if (name, version) != (described.name, described.version):
            served = f"{described.name!r} version {described.version}"
            raise HTTPException(404, f"unknown model {name!r} version {version}; this server has {served}")

    async def respond(self, request: Request, form: Form, name: str, version: str) -> Response:
        """Answer a request to the model of this name.

        Raises:
            HTTPException: it is refused; the detail says why.
        """
        started = time.perf_counter()
        status = 500
        try:
            self.check_model(name, version)
            body, parts = await self._answer(request, form)
            status = 200
            self._metrics.observe(time.perf_counter() - started, parts)
            return Response(body, media_type="application/json")
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self._metrics.requests.labels(str(status)).inc()

    async def _answer(self, request: Request, form: Form) -> tuple[bytes, dict[str, float]]:
        """The body of the answer, and the seconds of each part."""
        try:
            # Asked before the body is read, so that a server that is behind does not collect bodies.
            self._batcher.check_open()
            if self._pipelines:
                self._pipelines.check_open()
            body = await _body(request, self._description.limits.max_body_bytes)
            arrived = time.perf_counter()
            parsed = form.read(body, request.headers)
            read = time.perf_counter()
            outputs, columns, spent = await self._run(parsed)
            answered = time.perf_counter()
            content = form.write(parsed, outputs, columns)
            written = time.perf_counter()
        except Draining:
            raise HTTPException(503, "the server is shutting down", {"Retry-After": "5"}) from None
        except QueueFull:
            message = f"the queue is full ({self._description.limits.queue_capacity} requests wait)"
            raise HTTPException(503, message, {"Retry-After": "1"}) from None
        except BadRequest as error:
            raise HTTPException(400, str(error)) from None
        except BadSample as error:
            raise HTTPException(422, str(error)) from None
        except ModelFailed as error:
            raise HTTPException(500, f"the model failed on this input: {error}") from None
        except AnswerFailed as error:
            raise HTTPException(500, f"the model's outputs give no answer: {error}") from None
        except ValueError as error:
            raise HTTPException(500, str(error)) from None
        queued = max(0.0, answered - read - sum(spent.values()))
        return content, {"preprocess": read - arrived, **spent, "queue": queued, "postprocess": written - answered}

    async def _run(self, parsed: InferRequest) -> tuple[Arrays, Columns, dict[str, float]]:
        """The model's outputs, the columns that were asked for, and the seconds that were not spent waiting."""
        spent = {}
        inputs = parsed.inputs
        columns: Columns = {}
        if parsed.samples:
            assert self._pipelines is not None
            inputs, spent["prepare"] = await self._pipelines.prepare(parsed.samples)
        ran = await self._batcher.answer(inputs, parsed.rows)
        spent["compute"] = ran.compute_seconds
        if parsed.columns:
            assert self._pipelines is not None
            columns, spent["finish"] = await self._pipelines.finish(ran.outputs, parsed.samples)
        return ran.outputs, columns, spent


async def _body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(413, f"the body is larger than {limit} bytes", {"Connection": "close"})
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)
