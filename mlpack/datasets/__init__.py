"""Labelled data in the forms users have it in, streamed as named batches. Its table lists the kinds."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.table import Table
from mlpack.core.user_code import is_reference
from mlpack.datasets.fit import check_fits
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlpack.core.model import TensorSpec
    from mlpack.datasets.rows import RowDataset

__all__ = ["DATASETS", "check_fits", "open_data"]

DATASETS: Table[Callable[..., RowDataset]] = Table(
    "kind of data",
    {
        "npz": "mlpack.datasets.npz:open_npz",
        "npy_folder": "mlpack.datasets.npy_folder:open_npy_folder",
        "python_function": "mlpack.datasets.python_function:PythonFunction",
        "random": "mlpack.datasets.random_rows:open_random",
    },
)


def open_data(
    path: str, inputs: tuple[TensorSpec, ...] | None = None, *, seed: int = 0, fingerprint: str | None = None
) -> RowDataset:
    """Open what `--data` or `--calibration` names; with the model's inputs, checked against them and cast.

    `random:N` needs the inputs. With the fingerprint of an earlier opening the values are not read again.

    Raises:
        DataError: not there, no data, or data that does not fit.
    """
    if path.startswith("random:"):
        return DATASETS["random"](path, inputs, seed)
    dataset = _open(path, fingerprint)
    return dataset if inputs is None else check_fits(dataset, inputs)


def _open(path: str, fingerprint: str | None) -> RowDataset:
    place = Path(path).expanduser()
    if not place.exists():
        if is_reference(path):
            return DATASETS["python_function"](path, fingerprint)
        names = [each.name for each in place.parent.iterdir()] if place.parent.is_dir() else []
        near = difflib.get_close_matches(place.name, names, n=1)
        raise DataError(
            f"there is no data at {path}",
            f"did you mean {place.with_name(near[0])}?" if near else "check the path",
        )
    if place.is_dir():
        return DATASETS["npy_folder"](place.resolve(), fingerprint)
    if not place.is_file():
        raise DataError(f"{path} is not a regular file", "give a .npz, a folder of .npy, or file.py:function")
    if place.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)", "save or copy it again")
    if place.suffix == ".py":
        raise DataError(f"{path} is Python code: say which function gives the batches", f"{path}:batches")
    if place.suffix == ".npy":
        raise DataError(f"{path} is a single array", f"give its folder ({place.parent}), with one .npy per input")
    return DATASETS["npz"](place.resolve(), fingerprint)
