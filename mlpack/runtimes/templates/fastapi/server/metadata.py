"""What the server says of itself: the protocol's endpoints for metadata and health, the schema, and the metrics."""

from collections.abc import Callable

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .batching import Batcher
from .binary import EXTENSION
from .description import Description


def add_metadata(
    app: FastAPI, description: Description, batcher: Batcher, check_model: Callable[[str, str], None]
) -> None:
    """The protocol's endpoints. `check_model` refuses another model's name and version."""

    @app.get("/v2")
    async def server_metadata() -> dict[str, object]:
        return {"name": "mlpack-fastapi", "version": description.version, "extensions": [EXTENSION]}

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
        check_model(name, version)
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
        check_model(name, version)
        answer = {"name": description.name, "ready": not batcher.draining}
        return JSONResponse(answer, 503 if batcher.draining else 200)


def add_documents(app: FastAPI, document: dict[str, object], registry: CollectorRegistry) -> None:
    """The OpenAPI document, and what is counted."""

    @app.get("/openapi.json")
    async def show_schema() -> JSONResponse:
        return JSONResponse(document)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
