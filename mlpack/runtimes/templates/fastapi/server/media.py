"""Which forms of bodies are read: what else a client declares is refused before it is taken for something it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .binary import HEADER
from .faults import UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Mapping

_BYTES = "application/octet-stream"
_JSON = "application/json"


def check_protocol(headers: Mapping[str, str]) -> None:
    """Refuse all but JSON, and JSON with binary tensors behind it. Clients that declare nothing mean one of these.

    Raises:
        UnsupportedMedia: it is declared to be something else.
    """
    _check_encoding(headers)
    declared = media_type(headers)
    if declared == _BYTES and HEADER.lower() not in headers:
        raise UnsupportedMedia(f"a body of {_BYTES} needs the header {HEADER}: how long the JSON before the bytes is")
    if declared and declared != _BYTES and not _is_json(declared):
        raise UnsupportedMedia(f"a body of {declared} is not read here; send 'Content-Type: {_JSON}'")


def check_plain(headers: Mapping[str, str]) -> None:
    """Refuse all but JSON and the files of images.

    Raises:
        UnsupportedMedia: it is declared to be something else.
    """
    _check_encoding(headers)
    declared = media_type(headers)
    if declared and not _is_json(declared) and not is_file(declared):
        raise UnsupportedMedia(f"a body of {declared} is not read here; send 'Content-Type: {_JSON}' or an image file")


def media_type(headers: Mapping[str, str]) -> str:
    """What the body is declared to be, without parameters; empty where nothing is declared."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_file(declared: str) -> bool:
    """Whether the body is a file by itself."""
    return declared.startswith("image/") or declared == _BYTES


def _is_json(declared: str) -> bool:
    return declared == _JSON or (declared.startswith("application/") and declared.endswith("+json"))


def _check_encoding(headers: Mapping[str, str]) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMedia(f"a body in {encoding!r} encoding is not read here; send it as it is")
