"""Dataset: an iterable of named numpy batches with a fingerprint; never loads itself whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from mlpack.core.model import TensorSpec
from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

Part = Literal["calibration", "choosing", "confirming"]
PARTS: tuple[Part, ...] = ("calibration", "choosing", "confirming")


@dataclass(frozen=True)
class Batch:
    """Rows of a dataset: arrays by input name, first axis samples, all of one length.

    `rows` are the positions of these samples in the whole dataset: their ids. `labels`, `cluster` (what a sample
    was drawn with, such as the review a sentence is from) and `group` (the slice that it is reported in, such as
    its language) are None where there are none.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    rows: np.ndarray
    cluster: np.ndarray | None = None
    group: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | np.ndarray) -> Batch:
        """Only these of its rows."""
        return Batch(
            inputs={name: array[which] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[which],
            rows=self.rows[which],
            cluster=None if self.cluster is None else self.cluster[which],
            group=None if self.group is None else self.group[which],
        )


class Dataset(Protocol):
    """Named batches, streamed. Iterating twice gives the same rows in the same order."""

    fingerprint: str
    inputs: tuple[TensorSpec, ...]
    labelled: bool

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        ...


class DataRef(Frozen):
    """Where the data lies and how it is split: what travels to a child process in place of a dataset."""

    path: str
    fingerprint: str
    inputs: tuple[TensorSpec, ...]
    labelled: bool
    size: int
    split: str | None = None
    calibration_path: str | None = None
    calibration_fingerprint: str | None = None
