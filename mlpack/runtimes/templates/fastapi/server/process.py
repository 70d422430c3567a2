"""The server's process: listens, tells its supervisor that it is ready, and ends when it is told to, or left alone."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import uvicorn

from .environment import BACKLOG, LINK_FD, LISTEN_FD, listen

if TYPE_CHECKING:
    from types import FrameType

    from .batching import Batcher

# asyncio takes as many connections in one go as it is told of a backlog. Idle ones are closed where files are short,
# but only after the go: few at once leave the time for that.
ACCEPTED_AT_ONCE = 16


class Server(uvicorn.Server):
    """A server that is no longer ready from the moment on at which it is told to stop."""

    def __init__(self, config: uvicorn.Config, batcher: Batcher) -> None:
        super().__init__(config)
        self._batcher = batcher
        self._link = inherited(LINK_FD)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)
        if self._link:
            self._link.send(b"ready")
            asyncio.get_running_loop().add_reader(self._link, self._left_alone)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new requests; uvicorn then answers those that were accepted, and ends."""
        self._batcher.refuse()
        super().handle_exit(sig, frame)

    def _left_alone(self) -> None:
        """Nothing ever comes over the link but its end: nobody would end this process, and it holds the port."""
        assert self._link is not None
        asyncio.get_running_loop().remove_reader(self._link)
        self._batcher.refuse()
        self.should_exit = True


def listening_socket() -> socket.socket:
    """The supervisor's, else one of this process.

    Raises:
        PortTaken: the address cannot be had.
    """
    return inherited(LISTEN_FD) or listen()


def inherited(name: str) -> socket.socket | None:
    """A socket that the supervisor has left to this process."""
    number = os.environ.get(name)
    return socket.socket(fileno=int(number)) if number else None
