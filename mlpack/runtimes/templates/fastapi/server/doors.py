"""The doors to the model, in front of FastAPI's router: what that does for a request is not needed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    Door = Callable[[Request], Awaitable[Response]]


class Doors:
    """Answers what is posted to these paths; all else is FastAPI's."""

    def __init__(self, app: ASGIApp, doors: Mapping[str, Door]) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        door = self._doors.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if door is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await door(Request(scope, receive))
        except HTTPException as error:
            response = refusal(error)
        await response(scope, receive, send)


def refusal(error: HTTPException) -> JSONResponse:
    """What a client is told that gets no answer."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
