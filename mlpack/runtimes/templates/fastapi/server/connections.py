"""uvicorn's connections, with bounds on what a client may cost that sends slowly, reads slowly or does nothing."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

# Beside connections: the model's files, the pipeline's, the listening socket, Python's own.
_OTHER_FILES = 128
_LEAST_CONNECTIONS, _MOST_CONNECTIONS = 16, 8192


def bounded(seconds: int) -> type[H11Protocol]:
    """A class of connections on which a client may take so long to send a request's head, or to read an answer."""

    class Bounded(_Connection):
        client_seconds = seconds

    return Bounded


def most_connections() -> int:
    """How many this process has files for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return min(max(files - _OTHER_FILES, _LEAST_CONNECTIONS), _MOST_CONNECTIONS)


class _Connection(H11Protocol):
    client_seconds: int
    _begun = False
    idle_since = 0.0
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it is open and has no request that is still to be answered."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._expect_head()
        if len(self.connections) > most_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.idle:
            self._begun = False
            if self._head_timer:
                self._head_timer.cancel()
        elif not self._begun:
            # uvicorn's own timer, for connections that are kept, ends with the first byte of the next head.
            self._begun = True
            self._expect_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.idle_since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_timer = self.loop.call_later(self.client_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_timer:
            self._read_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._head_timer, self._read_timer):
            if timer:
                timer.cancel()

    def _expect_head(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self.client_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.idle:
            return
        if self._begun and self.conn.our_state is h11.IDLE:
            self.transport.write(_too_slow(self.client_seconds))
        self.end()

    def end(self) -> None:
        """Close it. What was written is still sent, but not to somebody who does not read it."""
        self.transport.close()
        self._read_timer = self.loop.call_later(self.client_seconds, self.transport.abort)

    def _make_room(self) -> None:
        """End the connection that has been idle longest; this one, the newest, where all others are busy."""
        idle = [each for each in self.connections if isinstance(each, _Connection) and each.idle]
        min(idle, key=lambda each: each.idle_since).end()


def _too_slow(seconds: int) -> bytes:
    body = json.dumps({"error": f"the head of the request did not come within {seconds} s"}).encode()
    head = f"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
