"""One request from its body to its answer: read, prepare, run, finish, write; each part timed, each refusal told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from .answers import Result, Written
from .batching import Answered, Batcher, Draining, QueueFull
from .course import Course
from .faults import BadRequest
from .pipelines import AnswerFailed, BadSample, Columns, Pipelines
from .protocol import InferRequest
from .rate_limit import RateLimit, TooOften
from .sessions import ModelFailed

if TYPE_CHECKING:
    from .bodies import Bodies
    from .cache import Cache
    from .description import Description
    from .metrics import Metrics
    from .sessions import Arrays
    from .tracing import Tracing

ANSWERED_BY = "X-Answered-By"
# The number is nginx's.
GONE = 499


@dataclass(frozen=True)
class Form:
    """How a request is read and its answer written."""

    read: Callable[[bytes, Mapping[str, str]], InferRequest]
    write: Callable[[InferRequest, Result], Written]


@dataclass(frozen=True)
class Parts:
    """What an answer goes through. Those that a package was made without are None."""

    batcher: Batcher
    pipelines: Pipelines | None
    bodies: Bodies
    cache: Cache | None
    tracing: Tracing | None


class Answering:
    """Everything that an answer needs."""

    def __init__(self, description: Description, parts: Parts, metrics: Metrics) -> None:
        self._description = description
        self._parts = parts
        self._metrics = metrics
        per_second = description.limits.rate_per_second
        self._rate = RateLimit(per_second) if per_second else None

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
        course = Course()
        status = 500
        try:
            self.check_model(name, version)
            self._check_rate(request)
            written = await self._answer(request, form, course)
            status = 200
            self._metrics.observe(time.perf_counter() - course.started, course.totals())
            return Response(written.body, media_type=written.media_type, headers=written.headers)
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self._metrics.requests.labels(str(status)).inc()
            if self._parts.tracing:
                self._parts.tracing.record(request, course, status)

    def _check_rate(self, request: Request) -> None:
        if self._rate is None or request.client is None:
            return
        try:
            self._rate.check(request.client.host)
        except TooOften as error:
            self._metrics.refused.labels("rate").inc()
            raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from None

    async def _answer(self, request: Request, form: Form, course: Course) -> Written:
        try:
            # Asked before the body is read, so that a server that is behind does not collect bodies.
            self._parts.batcher.check_open()
            if self._parts.pipelines:
                self._parts.pipelines.check_open()
            async with self._parts.bodies.read(request) as body:
                course.begin()
                parsed = form.read(body, request.headers)
                course.did("preprocess")
                result = await self._within_time(request, parsed, course)
                written = form.write(parsed, result)
                course.did("postprocess")
                if result.answered_by:
                    return replace(written, headers={**written.headers, ANSWERED_BY: result.answered_by})
                return written
        except Draining:
            raise HTTPException(503, "the server is shutting down", {"Retry-After": "5"}) from None
        except QueueFull:
            message = f"the queue is full ({self._description.limits.queue_capacity} requests wait)"
            raise HTTPException(429, message, {"Retry-After": "1"}) from None
        except BadRequest as error:
            raise HTTPException(error.status, str(error)) from None
        except BadSample as error:
            raise HTTPException(422, str(error)) from None
        except ModelFailed as error:
            raise HTTPException(500, f"the model failed on this input: {error}") from None
        except AnswerFailed as error:
            raise HTTPException(500, f"the model's outputs give no answer: {error}") from None

    async def _within_time(self, request: Request, parsed: InferRequest, course: Course) -> Result:
        allowed = self._description.limits.timeout_ms / 1000
        if parsed.timeout_us:
            allowed = min(allowed, parsed.timeout_us / 1e6)
        try:
            async with asyncio.timeout(allowed), _unless_gone(request):
                return await self._run(parsed, course)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {1000 * allowed:g} ms") from None

    async def _run(self, parsed: InferRequest, course: Course) -> Result:
        """The model's outputs, and the columns that were asked for."""
        inputs = parsed.inputs
        if parsed.samples:
            assert self._parts.pipelines is not None
            inputs, seconds = await self._parts.pipelines.prepare(parsed.samples)
            course.did("prepare", seconds)
        ran = await self._outputs(inputs, parsed.rows)
        course.did("compute", ran.compute_seconds)
        columns: Columns = {}
        if parsed.columns:
            assert self._parts.pipelines is not None
            columns, seconds = await self._parts.pipelines.finish(ran.outputs, parsed.samples)
            course.did("finish", seconds)
        spare = self._description.fallback
        if spare is None or not ran.by_spare:
            return Result(ran.outputs, columns)
        self._metrics.fallbacks.inc()
        return Result(ran.outputs, columns, f"{spare.name}@{spare.version}")

    async def _outputs(self, inputs: Arrays, rows: int) -> Answered:
        """The model's outputs: kept ones where these inputs came before."""
        cache = self._parts.cache
        if cache is None:
            return await self._parts.batcher.answer(inputs, rows)
        key = cache.key(inputs)
        kept = await cache.get(key)
        if kept is not None:
            return Answered(kept, 0.0)
        ran = await self._parts.batcher.answer(inputs, rows)
        # The spare's answers are not this model's: when it works again, it is asked again.
        if not ran.by_spare:
            await cache.put(key, ran.outputs)
        return ran


@asynccontextmanager
async def _unless_gone(request: Request) -> AsyncIterator[None]:
    """Ends the work in the block when its client goes away: who asks again must not find its own ghosts waiting.

    Raises:
        HTTPException: that happened; nobody reads it but who reads the metrics.
    """
    working = asyncio.current_task()
    assert working is not None
    leaving = asyncio.ensure_future(_gone(request, working))
    try:
        yield
    except asyncio.CancelledError:
        # Others end this task too: its deadline, and a server that has to stop.
        if not leaving.done() or working.uncancel() > 0:
            raise
        raise HTTPException(GONE, "the client has gone away") from None
    finally:
        leaving.cancel()


async def _gone(request: Request, working: asyncio.Task[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    working.cancel()
