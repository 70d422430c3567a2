"""Batches of the user's function, written down once: what is trained on is read in any order, again and again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.filesystem import refused_by_machine, remove, temporary_sibling
from mlpack.datasets.cache import cache_folder
from mlpack.datasets.npy_folder import open_npy_folder
from mlpack.datasets.rows import LABELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlpack.datasets.rows import RowDataset

_BATCH = 256
# What a rename onto a folder that is not empty says.
_THERE = {errno.ENOTEMPTY, errno.EEXIST}


def spooled(fingerprint: str, opened: Callable[[], RowDataset]) -> RowDataset:
    """The dataset of this fingerprint as a folder of `.npy` in the cache; `opened` where it is not there yet."""
    place = cache_folder() / "datasets" / fingerprint / "spooled"
    if not place.is_dir():
        dataset = opened()
        with refused_by_machine(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        work = temporary_sibling(place)
        try:
            with refused_by_machine(place):
                _write(dataset, work)
                _put(work, place)
        finally:
            remove(work)
    return open_npy_folder(place, fingerprint)


def _put(work: Path, place: Path) -> None:
    """The finished folder in its place, unless another process was quicker: it wrote the same."""
    try:
        work.rename(place)
    except OSError as error:
        if error.errno not in _THERE:
            raise


def _write(dataset: RowDataset, folder: Path) -> None:
    files: dict[str, np.ndarray] = {}
    start = 0
    for batch in dataset.batches(_BATCH):
        arrays = batch.inputs if batch.labels is None else {**batch.inputs, LABELS: batch.labels}
        for name, array in arrays.items():
            if name not in files:
                shape = (len(dataset), *array.shape[1:])
                files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, shape)
            files[name][start : start + len(batch)] = array
        start += len(batch)
    for each in files.values():
        each.flush()  # type: ignore[attr-defined] # a memmap
