"""Training rows are nothing that is judged on: no sample of theirs may be among the evaluation data, by content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.filesystem import write_atomic
from mlpack.datasets import raw_kind
from mlpack.datasets.scan import content_hashes
from mlpack.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.dataset import Dataset

_BATCH = 64
_SHOWN = 5


def refuse_trained(evaluation: Dataset, train: Dataset, checked: Path) -> None:
    """Whether the two have no sample in common. `checked` is a file that says so later on, of this very data.

    Raises:
        DataError: they have; says which rows.
    """
    if checked.is_file():
        return
    judged = np.unique(_contents(evaluation))
    trained = _contents(train)
    rows = np.flatnonzero(np.isin(trained, judged))
    if len(rows):
        shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
        raise DataError(
            f"{len(rows)} of {len(trained)} rows of the training data are also in the evaluation data (rows {shown})",
            "take them out of one of the two: what was trained on proves nothing",
        )
    write_atomic(checked, "")


def refuse_other_kind(evaluation: str, train: str) -> None:
    """Whether their samples can be compared: texts with texts, images with images, arrays with arrays.

    Raises:
        DataError: they cannot.
    """
    one, two = raw_kind(evaluation), raw_kind(train)
    if one != two:
        said = {"table_file": "texts", "image_folder": "images", None: "arrays"}
        raise DataError(
            f"{evaluation} holds {said[one]} and {train} {said[two]}: nobody can tell which samples they share",
            f"give training data of {said[one]}",
        )


def _contents(data: Dataset) -> np.ndarray:
    """A 64-bit hash of each sample, in the order of the rows."""
    rows, contents = [], []
    for batch in data.batches(_BATCH):
        rows.append(batch.rows)
        contents.append(content_hashes(batch))
    return np.concatenate(contents)[np.argsort(np.concatenate(rows), kind="stable")]
