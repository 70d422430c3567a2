"""Opens a part of the data again from what travels to a child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.dataset import DataRef
from mlpack.core.user_code import absolute
from mlpack.datasets import open_data
from mlpack.datasets.part import part_of
from mlpack.datasets.split import Split

if TYPE_CHECKING:
    from mlpack.core.dataset import Dataset, Part, RawOptions
    from mlpack.core.model import TensorSpec
    from mlpack.datasets.rows import RowDataset


def make_ref(
    path: str,
    dataset: Dataset,
    split: Path | None = None,
    calibration_path: str | None = None,
    calibration: Dataset | None = None,
    raw: RawOptions | None = None,
) -> DataRef:
    """What a child process needs to open the same data; `split` is where the split was saved."""
    return DataRef(
        path=absolute(path),
        fingerprint=dataset.fingerprint,
        inputs=dataset.inputs,
        labelled=dataset.labelled,
        size=len(dataset),
        split=None if split is None else str(split.resolve()),
        calibration_path=None if calibration_path is None else absolute(calibration_path),
        calibration_fingerprint=None if calibration is None else calibration.fingerprint,
        raw=raw,
    )


def open_part(ref: DataRef, part: Part, model_inputs: tuple[TensorSpec, ...] | None = None) -> RowDataset:
    """One part of the data, checked against the model's inputs where they are known.

    Without a split it is the whole data. Values are not read again: the fingerprint says what they are.

    Raises:
        DataError: the data has gone or does not fit the model.
    """
    split = None if ref.split is None else Split.load(Path(ref.split))
    seed = 0 if split is None else split.seed
    if part == "calibration" and ref.calibration_path is not None:
        return open_data(
            ref.calibration_path, model_inputs, seed=seed, fingerprint=ref.calibration_fingerprint, raw=ref.raw
        )
    whole = open_data(ref.path, model_inputs, seed=seed, fingerprint=ref.fingerprint, raw=ref.raw)
    if split is None:
        return whole
    return part_of(whole, split.rows(part))
