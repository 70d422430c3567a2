"""Reads the bodies of requests within bounds: of one, of all that are held at once, and of the time that one takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from fastapi import Request

# A large body may take longer, as long as it comes at this rate.
_SLOWEST_BYTES_PER_SECOND = 64 * 1024


@dataclass(frozen=True)
class Bounds:
    """Of one body in bytes, of all together in bytes, and the seconds in which one has to come."""

    body_bytes: int
    held_bytes: int
    seconds: int


class Bodies:
    """Counts what it has read until it is no longer needed, so that memory stays bounded whatever is sent."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of bodies that are being read, or whose requests are not answered yet."""
        return self._held

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts as held until the block ends.

        Raises:
            HTTPException: 413 too large, 408 too slow, 429 too much is held, 400 it is cut off.
        """
        body = bytearray()
        try:
            await self._receive(request, body)
            yield bytes(body)
        finally:
            self._held -= len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        bounds = self._bounds
        too_large = _closing(413, f"the body is larger than {bounds.body_bytes} bytes")
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > bounds.body_bytes:
            raise too_large
        started = asyncio.get_running_loop().time()
        more = 0
        try:
            async with asyncio.timeout(bounds.seconds) as clock:
                async for chunk in request.stream():
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > bounds.body_bytes:
                        raise too_large
                    if self._held > bounds.held_bytes:
                        raise _closing(429, "the requests that wait are too large together", {"Retry-After": "1"})
                    # Most bodies are small, and come whole: their clock is set once.
                    if len(body) // _SLOWEST_BYTES_PER_SECOND > more:
                        more = len(body) // _SLOWEST_BYTES_PER_SECOND
                        clock.reschedule(started + bounds.seconds + more)
        except ClientDisconnect:
            raise HTTPException(400, "the connection ended before the body did") from None
        except TimeoutError:
            message = f"the body did not come within {bounds.seconds} s (and 1 s for every 64 KiB of it)"
            raise _closing(408, message) from None


def _closing(status: int, message: str, headers: dict[str, str] | None = None) -> HTTPException:
    # The rest of the body is not read, so nothing can follow it on this connection.
    return HTTPException(status, message, {"Connection": "close", **(headers or {})})
