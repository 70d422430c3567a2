"""The protocol's binary tensor extension: values as bytes behind the JSON, in requests and in answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .description import DATATYPES
from .faults import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .description import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

EXTENSION = "binary_tensor_data"
HEADER = "Inference-Header-Content-Length"
SIZE = "binary_data_size"
# Each value of a BYTES tensor has its length before it.
_LENGTH = 4


def split(body: bytes, head: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, and what follows it; `head` is the header that says where it ends.

    Raises:
        BadRequest: the header is no length, or the body is shorter.
    """
    whole = memoryview(body)
    if head is None:
        return body, whole[len(body) :]
    if not (head.isascii() and head.isdigit()) or not 0 < int(head) <= len(body):
        raise BadRequest(f"{HEADER} is {head!r}; it must be the length of the JSON, and the body has {len(body)} bytes")
    return bytes(whole[: int(head)]), whole[int(head) :]


def attach(inputs: Any, tail: memoryview) -> None:
    """Make each input's part of the bytes that follow the JSON its 'data'.

    Raises:
        BadRequest: a size is none, or together they are not as long as what came.
    """
    position = 0
    for each in inputs if isinstance(inputs, list) else []:
        parameters = each.get("parameters") if isinstance(each, dict) else None
        size = parameters.get(SIZE) if isinstance(parameters, dict) else None
        if size is None:
            continue
        name = each.get("name")
        if type(size) is not int or size < 0:
            raise BadRequest(f"the {SIZE} of input {name!r} must be a whole number of bytes")
        if each.get("data") is not None:
            raise BadRequest(f"input {name!r} has both 'data' and a {SIZE}")
        if position + size > len(tail):
            missing = position + size - len(tail)
            raise BadRequest(f"the body ends {missing} bytes before the binary data of input {name!r} does")
        each["data"] = tail[position : position + size]
        position += size
    if position != len(tail):
        raise BadRequest(f"{len(tail) - position} bytes follow the binary data that the inputs announce")


def tensor_values(data: memoryview, tensor: Tensor, shape: tuple[int, ...]) -> Array:
    """The values of a tensor of this shape.

    Raises:
        BadRequest: there are more or fewer bytes than it has, or some mean no value that is taken here.
    """
    dtype = DATATYPES[tensor.datatype].newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise BadRequest(
            f"input {tensor.name!r} has {len(data)} bytes of binary data, "
            f"{tensor.datatype} of shape {list(shape)} has {wanted}"
        )
    if dtype.kind == "b" and (np.frombuffer(data, np.uint8) > 1).any():
        raise BadRequest(f"the binary data of input {tensor.name!r} has bytes other than 0 and 1")
    # Behind a JSON of any length values may start anywhere, and backends want them aligned.
    array = np.require(np.frombuffer(data, dtype).reshape(shape), requirements="A")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"the binary data of input {tensor.name!r} has NaN or infinity")
    return array


def byte_values(data: memoryview, name: str, count: int) -> list[bytes]:
    """So many values of a BYTES tensor.

    Raises:
        BadRequest: there are more or fewer, or the last one is cut off.
    """
    values: list[bytes] = []
    position = 0
    while position < len(data) and len(values) <= count:
        start = position + _LENGTH
        end = start + int.from_bytes(data[position:start], "little")
        if end > len(data):
            raise BadRequest(f"value {len(values) + 1} of input {name!r} is cut off")
        values.append(bytes(data[start:end]))
        position = end
    if len(values) != count:
        found = f"more than {count}" if len(values) > count else len(values)
        raise BadRequest(f"input {name!r} has {found} values in its binary data, its shape says {count}")
    return values


def written(values: Array | Sequence[Any], datatype: str) -> bytes:
    """A tensor, or a column's values, as bytes."""
    if datatype == "BYTES":
        return b"".join(_with_length(values))
    return np.asarray(values, DATATYPES[datatype].newbyteorder("<")).tobytes()


def _with_length(values: Iterable[str]) -> Iterable[bytes]:
    for value in values:
        encoded = value.encode()
        yield len(encoded).to_bytes(_LENGTH, "little") + encoded
