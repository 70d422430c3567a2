"""A folder of `.npy`: one file per model input under its name, optional `labels.npy`, `cluster.npy`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mlpack.core.model import sha256_of
from mlpack.datasets.npz import read_header
from mlpack.datasets.rows import ArrayDataset, check_arrays, check_values
from mlpack.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.datasets.rows import RowDataset


def open_npy_folder(path: Path, fingerprint: str | None = None) -> RowDataset:
    """The dataset in a folder, memory-mapped. The fingerprint is over names and contents of the files.

    Raises:
        DataError: no `.npy` in it, or arrays that do not make a dataset.
    """
    files = sorted(path.glob("*.npy"))
    if not files:
        raise DataError(f"the folder {path} holds no .npy files", "np.save('x.npy', x) for each model input")
    arrays = {}
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty (0 bytes)", "save or copy it again")
        with file.open("rb") as stream:
            arrays[file.stem] = read_header(stream, file.stem, file, file.stat().st_size)
    check_arrays(arrays, str(path))
    if fingerprint is None:
        check_values(arrays, str(path))
        fingerprint = hashlib.sha256("\n".join(f"{file.name} {sha256_of(file)}" for file in files).encode()).hexdigest()
    return ArrayDataset(arrays, fingerprint)
