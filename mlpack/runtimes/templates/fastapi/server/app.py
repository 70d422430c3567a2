"""The HTTP face: the V2 inference protocol's endpoints, health, and Prometheus metrics."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.exceptions import HTTPException

from .batching import Batcher, Draining, QueueFull
from .description import Description, Limits
from .protocol import BadRequest, InferRequest, build_response, parse_request
from .sessions import ModelFailed, Session

_PARTS = ("preprocess", "queue", "compute", "postprocess")
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """What /metrics shows."""

    def __init__(self, limits: Limits) -> None:
        self.registry = CollectorRegistry()
        sizes = sorted({1, 2, 4, 8, 16, 32, 64, 128, limits.max_rows or 1})
        self.requests = Counter(
            "inference_requests", "Inference requests by HTTP status", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "inference_request_seconds",
            "Time from reading an answered request to its response",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.parts = Histogram(
            "inference_part_seconds",
            "Where the time of a request goes: reading it, waiting for the model, the model's run, writing the answer",
            ["part"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "inference_batch_rows",
            "Rows of the batches that the model ran",
            buckets=sizes,
            registry=self.registry,
        )
        self.queue_depth = Gauge("inference_queue_depth", "Requests that wait", registry=self.registry)
        for part in _PARTS:
            self.parts.labels(part)

    def observe(self, seconds: float, parts: Sequence[float]) -> None:
        """An answered request: its whole time, and that of each of its parts."""
        self.seconds.observe(seconds)
        for part, spent in zip(_PARTS, parts, strict=True):
            self.parts.labels(part).observe(spent)


def create_app(description: Description, sessions: list[Session]) -> tuple[FastAPI, Batcher]:
    """The application and the queue behind it."""
    metrics = Metrics(description.limits)
    batcher = Batcher(sessions, description.limits, metrics.batch_rows.observe)
    metrics.queue_depth.set_function(lambda: batcher.depth)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.drain()

    app = FastAPI(
        title=description.name,
        version=description.version,
        lifespan=lifespan,
        openapi_url=None,  # its pages would load scripts from the network
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    _add_metadata(app, description, batcher)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str = description.version) -> Response:
        started = time.perf_counter()
        status = 500
        try:
            body, parts = await _answer(request, name, version, description, batcher)
            status = 200
            metrics.observe(time.perf_counter() - started, parts)
            return Response(body, media_type="application/json")
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            metrics.requests.labels(str(status)).inc()

    return app, batcher


def _add_metadata(app: FastAPI, description: Description, batcher: Batcher) -> None:
    @app.get("/v2")
    async def server_metadata() -> dict[str, object]:
        return {"name": "mlpack-fastapi", "version": description.version, "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": not batcher.draining}, 503 if batcher.draining else 200)

    @app.post("/v2/repository/index")
    async def index() -> list[dict[str, str]]:
        state = "UNAVAILABLE" if batcher.draining else "READY"
        return [{"name": description.name, "version": description.version, "state": state}]

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def model_metadata(name: str, version: str = description.version) -> dict[str, object]:
        _check_model(name, version, description)
        return {
            "name": description.name,
            "versions": [description.version],
            "platform": description.backend,
            "inputs": [tensor.metadata for tensor in description.inputs],
            "outputs": [tensor.metadata for tensor in description.outputs],
            "parameters": {"artifact_digest": description.digest},
        }

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str = description.version) -> JSONResponse:
        _check_model(name, version, description)
        answer = {"name": description.name, "ready": not batcher.draining}
        return JSONResponse(answer, 503 if batcher.draining else 200)


async def _answer(
    request: Request, name: str, version: str, description: Description, batcher: Batcher
) -> tuple[bytes, tuple[float, float, float, float]]:
    """The body of the answer, and the seconds of each of `_PARTS`."""
    _check_model(name, version, description)
    try:
        # Asked before the body is read, so that a server that is behind does not collect bodies.
        batcher.check_open()
        body = await _body(request, description.limits.max_body_bytes)
        arrived = time.perf_counter()
        parsed = _parsed(body, request, description)
        read = time.perf_counter()
        ran = await batcher.answer(parsed.inputs, parsed.rows)
        answered = time.perf_counter()
        content = build_response(parsed, ran.outputs, description)
        written = time.perf_counter()
    except Draining:
        raise HTTPException(503, "the server is shutting down", {"Retry-After": "5"}) from None
    except QueueFull:
        message = f"the queue is full ({description.limits.queue_capacity} requests wait)"
        raise HTTPException(503, message, {"Retry-After": "1"}) from None
    except BadRequest as error:
        raise HTTPException(400, str(error)) from None
    except ModelFailed as error:
        raise HTTPException(500, f"the model failed on this input: {error}") from None
    except ValueError as error:
        raise HTTPException(500, str(error)) from None
    queued = max(0.0, answered - read - ran.compute_seconds)
    return content, (read - arrived, queued, ran.compute_seconds, written - answered)


def _parsed(body: bytes, request: Request, description: Description) -> InferRequest:
    if "inference-header-content-length" in request.headers:
        raise BadRequest("binary tensor data is not supported; send the data as JSON")
    return parse_request(body, description)


def _check_model(name: str, version: str, description: Description) -> None:
    if (name, version) != (description.name, description.version):
        served = f"{description.name!r} version {description.version}"
        raise HTTPException(404, f"unknown model {name!r} version {version}; this server has {served}")


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


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"internal error: {type(error).__name__}"}, 500)
