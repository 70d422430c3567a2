"""The HTTP face: the V2 inference protocol's endpoints, a plain door for people, health, and Prometheus metrics."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from .answering import Answering, Form
from .batching import Batcher
from .description import Description
from .metrics import Metrics
from .pipelines import Columns, Pipelines
from .protocol import BadRequest, InferRequest, build_response, read_content, tensor_request
from .raw_requests import is_raw, plain_request, plain_response, raw_request
from .sessions import Arrays, Session


def create_app(
    description: Description, sessions: list[Session], pipelines: Pipelines | None = None
) -> tuple[FastAPI, Batcher]:
    """The application and the queue behind it."""
    metrics = Metrics(description)
    batcher = Batcher(sessions, description.limits, metrics.batch_rows.observe)
    metrics.queue_depth.set_function(lambda: batcher.depth + (pipelines.depth if pipelines else 0))
    answering = Answering(description, batcher, pipelines, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        if pipelines:
            pipelines.start()
        yield
        await batcher.drain()
        if pipelines:
            pipelines.stop()

    app = FastAPI(
        title=description.name,
        version=description.version,
        lifespan=lifespan,
        openapi_url=None,  # its pages would load scripts from the network
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    _add_metadata(app, description, batcher, answering)
    protocol, plain = _protocol_form(description, pipelines), _plain_form(description)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str = description.version) -> Response:
        return await answering.respond(request, protocol, name, version)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return await answering.respond(request, plain, description.name, description.version)

    return app, batcher


def _protocol_form(description: Description, pipelines: Pipelines | None) -> Form:
    def read(body: bytes, headers: Mapping[str, str]) -> InferRequest:
        if "inference-header-content-length" in headers:
            raise BadRequest("binary tensor data is not supported; send the data as JSON")
        content = read_content(body)
        wanted = raw_request if is_raw(content, description.raw) else tensor_request
        return wanted(content, description)

    def write(request: InferRequest, outputs: Arrays, columns: Columns) -> bytes:
        return build_response(request, outputs, description, pipelines.packed(columns) if pipelines else None)

    return Form(read, write)


def _plain_form(description: Description) -> Form:
    def read(body: bytes, headers: Mapping[str, str]) -> InferRequest:
        return plain_request(body, headers.get("content-type", ""), description)

    return Form(read, plain_response)


def _add_metadata(app: FastAPI, description: Description, batcher: Batcher, answering: Answering) -> None:
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
        answering.check_model(name, version)
        return {
            "name": description.name,
            "versions": [description.version],
            "platform": description.backend,
            "inputs": [tensor.metadata for tensor in description.inputs],
            "outputs": [tensor.metadata for tensor in description.outputs],
            "parameters": {"artifact_digest": description.digest},
            **(description.raw.metadata if description.raw else {}),
        }

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str = description.version) -> JSONResponse:
        answering.check_model(name, version)
        answer = {"name": description.name, "ready": not batcher.draining}
        return JSONResponse(answer, 503 if batcher.draining else 200)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"internal error: {type(error).__name__}"}, 500)
