"""Who may ask: where there is a token, every path but the health checks needs it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# What asks whether the server lives is often a machine that cannot keep a secret.
OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
_SCHEME = b"bearer "


class TokenGate:
    """In front of the application: `Authorization: Bearer TOKEN`, else 401. Metrics and metadata need it too."""

    def __init__(self, app: ASGIApp, token: str, on_refusal: Callable[[], None]) -> None:
        self._app = app
        self._digest = _digest(token.encode())
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here before its body is read."""
        if scope["type"] != "http" or scope["path"] in OPEN or self._knows(scope):
            await self._app(scope, receive, send)
            return
        self._on_refusal()
        headers = {"WWW-Authenticate": "Bearer", "Connection": "close"}
        await JSONResponse({"error": "this server needs 'Authorization: Bearer TOKEN'"}, 401, headers)(
            scope, receive, send
        )

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not given[0].lower().startswith(_SCHEME):
            return False
        # Digests are of one length, and comparing them takes the same time however much of them is right.
        return hmac.compare_digest(_digest(given[0][len(_SCHEME) :].strip()), self._digest)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
