"""The header of a safetensors file: which tensors it holds, of what kind, and where; read without the library."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_LENGTH_BYTES = 8


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """`{tensor name: {dtype, shape, data_offsets}}` of a safetensors file."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(_LENGTH_BYTES))
        header: dict[str, dict[str, Any]] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header


def data_start(path: Path) -> int:
    """Where the tensors begin, which `data_offsets` count from."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(_LENGTH_BYTES))
    return int(length) + _LENGTH_BYTES
