"""The HTTP face: everything that the package was made with, joined, and the doors to ask it by."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .access import TokenGate
from .answering import Answering, Parts
from .batching import Batcher
from .bodies import Bodies
from .cache import open_cache
from .description import Description
from .doors import Doors, refusal
from .forms import plain_form, protocol_form
from .metadata import add_documents, add_metadata
from .metrics import Metrics
from .pipelines import Pipelines
from .schema import openapi
from .sessions import Model
from .settings import Settings
from .tracing import open_tracing


def create_app(
    description: Description, models: list[Model], pipelines: Pipelines | None, settings: Settings
) -> tuple[FastAPI, Batcher]:
    """The application and the queue behind it."""
    metrics = Metrics(description)
    batcher = Batcher(models, description.limits, metrics.batch_rows.observe)
    bodies = Bodies(settings.bounds)
    metrics.queue_depth.set_function(lambda: batcher.depth + (pipelines.depth if pipelines else 0))
    metrics.held_bytes.set_function(lambda: bodies.held)
    parts = Parts(batcher, pipelines, bodies, open_cache(description, settings, metrics), open_tracing(description))
    answering = Answering(description, parts, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        if pipelines:
            pipelines.start()
        yield
        await batcher.drain()
        if pipelines:
            pipelines.stop()
        if parts.cache:
            await parts.cache.close()
        if parts.tracing:
            await parts.tracing.close()

    app = FastAPI(
        title=description.name,
        version=description.version,
        lifespan=lifespan,
        openapi_url=None,  # FastAPI knows nothing of the bodies, and its pages would load scripts from the network
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    add_metadata(app, description, batcher, answering.check_model)
    add_documents(app, openapi(description, needs_token=settings.token is not None), metrics.registry)
    protocol, plain = protocol_form(description, pipelines), plain_form(description)

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str = description.version) -> Response:
        return await answering.respond(request, protocol, name, version)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return await answering.respond(request, plain, description.name, description.version)

    # The last one added is asked first: nobody passes a door without the token.
    own = f"/v2/models/{description.name}"
    in_protocol = partial(answering.respond, form=protocol, name=description.name, version=description.version)
    app.add_middleware(
        Doors,
        doors={
            f"{own}/infer": in_protocol,
            f"{own}/versions/{description.version}/infer": in_protocol,
            "/predict": predict,
        },
    )
    if settings.token:
        app.add_middleware(TokenGate, token=settings.token, on_refusal=metrics.refused.labels("token").inc)
    return app, batcher


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return refusal(error)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"internal error: {type(error).__name__}"}, 500)
