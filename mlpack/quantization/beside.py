"""Constants of a graph in a file beside it: read one at a time, and written one after the other."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

# Kernels read words of this size at once; a map of the file begins at any page.
_ALIGNED = 64
_AT_ONCE = 64 << 20


def is_beside(tensor: TensorProto) -> bool:
    """Whether its content lies in a file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def array_of(tensor: TensorProto, folder: Path) -> np.ndarray:
    """What a constant holds. Of a file these bytes alone are read, and nothing of them stays in the tensor."""
    if not is_beside(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    location, offset, _ = _place(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    size = math.prod(tensor.dims) * dtype.itemsize
    content = np.fromfile(folder / location, np.uint8, size, offset=offset)
    return np.asarray(content.view(dtype).reshape(tuple(tensor.dims)))


def _place(tensor: TensorProto) -> tuple[str, int, int]:
    """File, first byte, number of bytes."""
    told = {each.key: each.value for each in tensor.external_data}
    size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return told["location"], int(told.get("offset", 0)), int(told.get("length", size))


@contextmanager
def data_file(path: Path, *, wanted: bool) -> Iterator[DataFile | None]:
    """A new file of constants at `path`; None where they are to lie in the graph itself."""
    if not wanted:
        yield None
        return
    with path.open("wb") as stream:
        yield DataFile(stream, path.name)


class DataFile:
    """A file of constants that is being written: each goes in as it is made, and leaves the memory."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name

    def put(self, tensor: TensorProto) -> TensorProto:
        """Move the content of a constant that is in memory into the file."""
        offset = self._start()
        self._stream.write(tensor.raw_data)
        return self._reference(tensor, offset, len(tensor.raw_data))

    def take(self, tensor: TensorProto, folder: Path) -> TensorProto:
        """Copy the content of a constant that lies in another file."""
        location, offset, size = _place(tensor)
        start = self._start()
        with (folder / location).open("rb") as source:
            source.seek(offset)
            for done in range(0, size, _AT_ONCE):
                self._stream.write(source.read(min(_AT_ONCE, size - done)))
        return self._reference(tensor, start, size)

    def _start(self) -> int:
        self._stream.write(bytes(-self._stream.tell() % _ALIGNED))
        return self._stream.tell()

    def _reference(self, tensor: TensorProto, offset: int, size: int) -> TensorProto:
        made = TensorProto(name=tensor.name, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL)
        made.dims.extend(tensor.dims)
        for key, value in (("location", self._name), ("offset", str(offset)), ("length", str(size))):
            made.external_data.add(key=key, value=value)
        return made
