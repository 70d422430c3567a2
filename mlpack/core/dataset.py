"""Dataset: an iterable of named numpy batches with a fingerprint; never loads itself whole."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from mlpack.core.model import TensorSpec
from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

Part = Literal["calibration", "choosing", "confirming", "train"]
PARTS: tuple[Part, ...] = ("calibration", "choosing", "confirming")
"""What the evaluation data is split into; what is trained on is data of its own."""


@dataclass(frozen=True)
class Batch:
    """Rows of a dataset: arrays by input name, first axis samples, all of one length.

    `rows` are the positions of these samples in the whole dataset: their ids. `labels`, `cluster` (what a sample
    was drawn with, such as the review a sentence is from) and `group` (the slice that it is reported in, such as
    its language) are None where there are none. Rows that were prepared from texts or images also have what they were
    made from: `raw`, a list per field, `content`, a 64-bit hash of each sample, and `names`, its file where it is one.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    rows: np.ndarray
    cluster: np.ndarray | None = None
    group: np.ndarray | None = None
    raw: dict[str, list[Any]] | None = None
    content: np.ndarray | None = None
    names: list[str] | None = None

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
            raw=None if self.raw is None else {name: _of(values, which) for name, values in self.raw.items()},
            content=None if self.content is None else self.content[which],
            names=None if self.names is None else _of(self.names, which),
        )


def _of(values: list[Any], which: slice | np.ndarray) -> list[Any]:
    if isinstance(which, slice):
        return values[which]
    chosen = which.nonzero()[0] if which.dtype.kind == "b" else which
    return [values[at] for at in chosen]


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


def to_json(value: Any) -> Any:
    """A raw value as JSON has it: a text as it is, bytes as {"b64": …}."""
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def from_json(value: Any) -> Any:
    """What `to_json` was given."""
    return base64.b64decode(value["b64"]) if isinstance(value, dict) and set(value) == {"b64"} else value


class RawOptions(Frozen):
    """How rows that are no arrays become some: texts in a table, images in a folder."""

    pipeline: str = Field(description="folder of the pipeline that prepares them")
    columns: dict[str, str] = Field(default_factory=dict, description="column of a table by what it holds")
    skip_bad: int = Field(default=0, description="so many samples that cannot be prepared are left out")
    order: Literal["lengths", "rows"] = Field(
        default="lengths", description="lengths: a batch holds samples of about one length; rows: as they stand"
    )


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
    train_path: str | None = None
    train_fingerprint: str | None = None
    raw: RawOptions | None = None
