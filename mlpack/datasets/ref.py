"""Opens a part of the data again from what travels to a child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.dataset import DataRef
from mlpack.core.user_code import absolute, is_reference
from mlpack.datasets import check_fits, open_data
from mlpack.datasets.part import part_of
from mlpack.datasets.split import Split
from mlpack.datasets.spool import spooled
from mlpack.errors import DataError

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
    train_path: str | None = None,
    train: Dataset | None = None,
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
        train_path=None if train_path is None else absolute(train_path),
        train_fingerprint=None if train is None else train.fingerprint,
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
    if part == "train":
        return _open_train(ref, model_inputs, seed)
    if part == "calibration" and ref.calibration_path is not None:
        return open_data(
            ref.calibration_path, model_inputs, seed=seed, fingerprint=ref.calibration_fingerprint, raw=ref.raw
        )
    whole = open_data(ref.path, model_inputs, seed=seed, fingerprint=ref.fingerprint, raw=ref.raw)
    if split is None:
        return whole
    return part_of(whole, split.rows(part))


def _open_train(ref: DataRef, model_inputs: tuple[TensorSpec, ...] | None, seed: int) -> RowDataset:
    """What is trained on. A function of the user's is called no more than once for it.

    Raises:
        DataError: there is none.
    """
    path, fingerprint = ref.train_path, ref.train_fingerprint
    if path is None or fingerprint is None:
        raise DataError("there is nothing to train on", "give training data: --train FILE.npz")

    def opened() -> RowDataset:
        return open_data(path, seed=seed, fingerprint=fingerprint, raw=ref.raw)

    if not is_reference(path):
        return open_data(path, model_inputs, seed=seed, fingerprint=fingerprint, raw=ref.raw)
    kept = spooled(fingerprint, opened)
    return kept if model_inputs is None else check_fits(kept, model_inputs)
