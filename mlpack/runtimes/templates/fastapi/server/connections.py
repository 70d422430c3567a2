"""uvicorn's connections, with bounds on what a client may cost that sends slowly, reads slowly or does nothing."""

from __future__ import annotations

import json
import resource
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

# Beside connections: the model's files, the pipeline's, the listening socket, Python's own.
_OTHER_FILES = 128
_LEAST_CONNECTIONS, _MOST_CONNECTIONS = 16, 8192
# Of a head, of trailers, of what a client writes beside the bytes of a chunk, before the next thing of use comes.
_MOST_HEAD_BYTES = 16 * 1024
_OFFERS = (b"upgrade", b"http2-settings")


def bounded(seconds: int) -> type[HttpToolsProtocol]:
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


class _Connection(HttpToolsProtocol):
    client_seconds: int
    _begun = False
    _head_bytes = 0
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
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse("this is no HTTP request", 400)
        if self._head_bytes > _MOST_HEAD_BYTES:
            self._refuse("the head of the request is too long", 431)
        elif not self.idle:
            self._begun = False
            if self._head_timer:
                self._head_timer.cancel()
        elif not self._begun:
            # uvicorn's own timer, for connections that are kept, ends with the first byte of the next head.
            self._begun = True
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

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
        if self.idle and self._begun:
            self._refuse(f"the head of the request did not come within {self.client_seconds} s", 408)
        elif self.idle:
            self.end()

    def _pass_over(self, rest: bytes) -> None:
        """Read a request as if it offered no other protocol (RFC 9110, 7.8): the parser leaves out its body.

        Java's client offers HTTP/2 so with whatever it sends first.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse("this is no HTTP request", 400)
            return
        version = self.parser.get_http_version().encode()
        kept = [(name, _without_offer(value) if name == b"connection" else value) for name, value in self.headers]
        lines = [name + b": " + value for name, value in kept if name not in _OFFERS]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([method + b" " + self.url + b" HTTP/" + version, *lines, b"", rest]))

    def _refuse(self, reason: str, status: int) -> None:
        """Say why and end; what was asked before is answered first."""
        asked = None if self.cycle is None or self.cycle.response_complete else self.cycle
        if asked and not asked.more_body:
            asked.keep_alive = False
            self.flow.pause_reading()
            return
        silent = asked is None or not (self.pipeline or asked.response_started)
        if silent and not self.transport.is_closing():
            self.transport.write(_refusal(reason, status))
        self.end()

    def end(self) -> None:
        """Close it. What was written is still sent, but not to somebody who does not read it."""
        self.transport.close()
        self._read_timer = self.loop.call_later(self.client_seconds, self.transport.abort)

    def _make_room(self) -> None:
        """End the connection that has been idle longest; this one, the newest, where all others are busy."""
        idle = [each for each in self.connections if isinstance(each, _Connection) and each.idle]
        min(idle, key=lambda each: each.idle_since).end()


def _without_offer(connection: bytes) -> bytes:
    options = (each.strip() for each in connection.split(b","))
    return b", ".join(each for each in options if each.lower() not in _OFFERS)


def _refusal(reason: str, status: int) -> bytes:
    body = json.dumps({"error": reason}).encode()
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    head = f"{line}Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
