"""Arrays of rows that stay on the disk, and the dataset made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlpack.core.dataset import Batch
from mlpack.core.model import TensorSpec
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LABELS, GROUP, CLUSTER = RESERVED = ("labels", "group", "cluster")
"""Names that are no model input."""
_PIECE_BYTES = 16 << 20
# Mapping a file costs more than a small batch: so much is read ahead.
_AHEAD_BYTES = 1 << 20


class RowDataset(Protocol):
    """A Dataset of which single rows can be had: all that a split and a part need."""

    fingerprint: str
    inputs: tuple[TensorSpec, ...]
    labelled: bool

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        ...

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows (int64, ascending positions), in batches of `size`."""
        ...


@dataclass(frozen=True)
class StoredArray:
    """One array of a file, at `offset` bytes.

    The file is mapped for the time of one read only, so that memory holds no more than what was asked for.
    """

    name: str
    path: Path
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool = False

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of these rows, in the machine's byte order."""
        mapped: np.ndarray = np.memmap(
            self.path,
            dtype=self.dtype,
            mode="r",
            offset=self.offset,
            shape=self.shape,
            order="F" if self.fortran else "C",
        )
        return np.array(mapped[rows], dtype=self.dtype.newbyteorder("="), order="C")

    @property
    def row_bytes(self) -> int:
        """What one row takes."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows, in pieces of about 16 MB with the number of their first row."""
        step = max(1, _PIECE_BYTES // max(1, self.row_bytes))
        for start in range(0, self.shape[0], step):
            yield start, self.read(slice(start, start + step))


class ArrayDataset:
    """Arrays by name, one per model input, with optional labels, clusters and groups."""

    def __init__(self, arrays: Mapping[str, StoredArray], fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._inputs = {name: array for name, array in arrays.items() if name not in RESERVED}
        self._labels = arrays.get(LABELS)
        self._cluster, self._group = arrays.get(CLUSTER), arrays.get(GROUP)
        self._size = next(iter(arrays.values())).shape[0]
        self._row_bytes = max(1, sum(array.row_bytes for array in arrays.values()))
        self.labelled = self._labels is not None
        self.inputs = tuple(
            TensorSpec(name=name, dtype=array.dtype.name, dims=("batch", *array.shape[1:]))
            for name, array in self._inputs.items()
        )

    def __len__(self) -> int:
        return self._size

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        step = self._ahead(size)
        for start in range(0, self._size, step):
            rows = np.arange(start, min(start + step, self._size))
            yield from _cut(self._batch(slice(start, start + step), rows), size)

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows, in batches of `size`."""
        step = self._ahead(size)
        for start in range(0, len(rows), step):
            chosen = rows[start : start + step]
            yield from _cut(self._batch(chosen, chosen), size)

    def _ahead(self, size: int) -> int:
        """How many rows are read at once: whole batches."""
        return size * max(1, _AHEAD_BYTES // (size * self._row_bytes))

    def _batch(self, which: slice | np.ndarray, rows: np.ndarray) -> Batch:
        return Batch(
            inputs={name: array.read(which) for name, array in self._inputs.items()},
            labels=None if self._labels is None else self._labels.read(which),
            rows=rows,
            cluster=None if self._cluster is None else self._cluster.read(which),
            group=None if self._group is None else self._group.read(which),
        )


def _cut(piece: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(piece), size):
        yield piece[start : start + size]


def check_arrays(arrays: Mapping[str, StoredArray], where: str) -> None:
    """Names, dtypes and lengths of the arrays of one dataset; reads no values.

    Raises:
        DataError: no inputs, no samples, unequal lengths, or a dtype that no model takes.
    """
    if not [name for name in arrays if name not in RESERVED]:
        raise DataError(
            f"{where} holds no input array, only {', '.join(arrays) or 'nothing'}",
            "save one array per model input, under the input's name: np.savez(path, x=x, labels=labels)",
        )
    for array in arrays.values():
        if array.name == GROUP and array.dtype.kind == "U":
            continue
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"array {array.name!r} in {where} has dtype {array.dtype}: models take numbers",
                f"convert it: {array.name} = {array.name}.astype('float32') (labels: int64 class numbers)",
            )
        if not array.shape:
            raise DataError(
                f"array {array.name!r} in {where} is a single number", "its first axis has to be the samples"
            )
    first, *others = arrays.values()
    for other in others:
        if other.shape[0] != first.shape[0]:
            raise DataError(
                f"in {where} {first.name!r} has {len(first)} samples but {other.name!r} has {len(other)}",
                "the first axis of each array is the samples: make them equally long",
            )
    if first.shape[0] == 0:
        raise DataError(f"{where} has no samples", "save at least 20 samples")


def check_values(arrays: Mapping[str, StoredArray], where: str) -> None:
    """Read every float once and refuse NaN and infinity.

    Raises:
        DataError: the array and its first bad row.
    """
    for array in arrays.values():
        if array.dtype.kind != "f":
            continue
        for start, piece in array.pieces():
            check_finite(array.name, piece, start, where)


def check_finite(name: str, piece: np.ndarray, start: int, where: str) -> None:
    """Refuse NaN and infinity in rows `start`, `start + 1`, … of an array.

    Raises:
        DataError: the array and its first bad row.
    """
    if piece.dtype.kind != "f":
        return
    good = np.isfinite(piece)
    if good.all():
        return
    row = int(np.argmin(good.reshape(len(piece), -1).all(axis=1)))
    word = "NaN" if np.isnan(piece[row]).any() else "infinity"
    raise DataError(
        f"array {name!r} in {where} has {word}, first in row {start + row}",
        f"drop such rows: keep = np.isfinite({name}.reshape(len({name}), -1)).all(1)",
    )
