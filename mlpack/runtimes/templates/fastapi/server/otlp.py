"""OpenTelemetry: a span for each request with its parts below it, sent by OTLP to where the environment says."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from fastapi import Request

    from .course import Course
    from .description import Description

_SERVER_ERROR = 500
_NANOSECONDS = 1e9


class OtlpTracing:
    """Spans are written when a request is over, from the times that were taken for the metrics."""

    def __init__(self, description: Description) -> None:
        own = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": description.name}
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        # It queues a bounded number of spans and drops the rest: a collector that is down costs nobody an answer.
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("mlpack.server")
        self._model = {"mlpack.model": description.name, "mlpack.model.version": description.version}
        self._propagator = TraceContextTextMapPropagator()

    def record(self, request: Request, course: Course, status: int) -> None:
        """The spans of a request, below the caller's where its traceparent names one."""
        # The course is in another clock than spans are.
        offset = time.time() - time.perf_counter()
        span = self._tracer.start_span(
            f"{request.method} {request.url.path}",
            self._propagator.extract(request.headers),
            SpanKind.SERVER,
            {**self._model, "http.request.method": request.method, "http.response.status_code": status},
            start_time=_nanoseconds(course.started + offset),
        )
        if status >= _SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span)
        for part, began, ended in course.parts:
            child = self._tracer.start_span(part, below, start_time=_nanoseconds(began + offset))
            child.end(_nanoseconds(ended + offset))
        span.end(_nanoseconds(time.perf_counter() + offset))

    async def close(self) -> None:
        """Send what is left, as long as somebody takes it."""
        await asyncio.to_thread(self._provider.shutdown)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
