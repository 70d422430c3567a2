"""A part of a dataset: only some of its rows, still streamed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.dataset import Batch
    from mlpack.core.model import TensorSpec
    from mlpack.datasets.rows import RowDataset


class RowsOf:
    """The given rows of a dataset. `Batch.rows` stay positions in the whole dataset."""

    def __init__(self, dataset: RowDataset, rows: np.ndarray) -> None:
        self._dataset = dataset
        self._rows = np.sort(rows)
        self.inputs: tuple[TensorSpec, ...] = dataset.inputs
        self.labelled = dataset.labelled
        content = dataset.fingerprint.encode() + self._rows.astype("<i8").tobytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        return self._dataset.batches_of(self._rows, size)

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Those of these rows (positions in the whole dataset) that the part has, in batches of `size`."""
        return self._dataset.batches_of(self._rows[np.isin(self._rows, rows)], size)


def part_of(dataset: RowDataset, rows: np.ndarray) -> RowDataset:
    """Only these rows of the dataset, in ascending order."""
    return RowsOf(dataset, rows)
