"""Variables that both the server and its supervisor read. Imports nothing that is large."""

from __future__ import annotations

import os
import socket

# Set by the supervisor for its worker: the listening socket, the link between the two, and what not to try again.
LISTEN_FD, LINK_FD, ONLY_FALLBACK = "SERVER_LISTEN_FD", "SERVER_LINK_FD", "SERVER_ONLY_FALLBACK"


# Clients that are connected before anybody has taken them.
BACKLOG = 2048


class BadSetting(Exception):
    """An environment variable has a value that cannot be used."""


class PortTaken(Exception):
    """The address cannot be listened on."""


def host() -> str:
    """HOST: the address to listen on; only this machine's own without it."""
    return os.environ.get("HOST", "127.0.0.1")


def port() -> int:
    """PORT.

    Raises:
        BadSetting: it is no number.
    """
    return number("PORT", 8000)


def number(name: str, default: int) -> int:
    """A whole number.

    Raises:
        BadSetting: it is none.
    """
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise BadSetting(f"{name}={text} is not a whole number")
    return int(text)


def listen() -> socket.socket:
    """A socket that clients can connect to, whether or not somebody takes them yet.

    Raises:
        BadSetting: PORT is no number.
        PortTaken: the address cannot be had.
    """
    name, at = host(), port()
    try:
        # asyncio sends small answers at once only on sockets that are known to be TCP's.
        found = socket.getaddrinfo(name, at, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise PortTaken(f"cannot listen on {name}:{at}: {error}") from error
    return listening
