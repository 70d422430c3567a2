"""Constants of a graph in a file beside it, written one after the other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnx import TensorProto

from mlpack.core.external_data import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

# Kernels read words of this size at once; a map of the file begins at any page.
_ALIGNED = 64
_AT_ONCE = 64 << 20


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
        location, offset, size = place_of(tensor)
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
