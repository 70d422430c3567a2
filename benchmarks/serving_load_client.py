"""A client that costs little of the core that it shares with a server's event loop: requests are bytes already.

It is what every server of `serving_load.py` is asked by. One request at a time over each connection; of an answer it
reads the status and as many bytes as are announced.
"""

from __future__ import annotations

import asyncio
import re

from mlpack.measure.clients.client import Failed, TooLate

OK = 200
TIMEOUT_S = 60.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole request."""
    lines = [f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": str(len(body))}.items()]
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{''.join(lines)}\r\n".encode() + body


class Lean:
    """Sends requests to one address. A request gets a free connection, or a new one where all are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[_Line] = []

    async def send(self, request: bytes) -> bytes:
        """The body of a good answer.

        Raises:
            Failed: another status, no answer in time, a broken connection.
        """
        try:
            line = self._free.pop() if self._free else await self._connected()
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await line.ask(request)
        except TimeoutError as error:
            raise TooLate(f"no answer within {TIMEOUT_S:g} s") from error
        except OSError as error:
            raise Failed(f"the connection broke: {error}") from error
        if not line.closed:
            self._free.append(line)
        if status != OK:
            raise Failed(f"HTTP {status}")
        return body

    def wrong(self, answer: bytes, _outputs: tuple[str, ...]) -> str | None:
        """What is wrong with a good answer; its values were compared before any time was taken."""
        return None if answer else "the answer is empty"

    def close(self) -> None:
        """End all connections."""
        for line in self._free:
            line.transport.close()

    async def _connected(self) -> _Line:
        _, line = await asyncio.get_running_loop().create_connection(_Line, "127.0.0.1", self._port)
        return line


class _Line(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.closed = False
        self._received = b""
        self._status, self._whole = 0, 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body of the answer to it."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.closed:
            self._answer.set_exception(ConnectionError("it was closed while it was idle"))
        else:
            self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._whole:
            end = self._received.find(_HEAD_END)
            if end < 0:
                return
            announced = _LENGTH.search(self._received, 0, end)
            assert announced, "an answer that does not say how long it is"
            self._status = int(self._received[9:12])
            self._whole = end + len(_HEAD_END) + int(announced[1])
        if len(self._received) >= self._whole:
            body = self._received[self._received.index(_HEAD_END) + len(_HEAD_END) : self._whole]
            self._received, self._whole = self._received[self._whole :], 0
            if self._answer and not self._answer.done():
                self._answer.set_result((self._status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, OSError) else ConnectionError("it was closed"))
