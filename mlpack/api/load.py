"""`mlpack.load()`: takes an artifact that was saved as one file into a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.lookup import store_folder

if TYPE_CHECKING:
    from mlpack.store.transfer import Loaded


def load(file: str | Path, store: str | Path | None = None) -> Loaded:
    """Check a saved artifact and take it into the store, under its own number where that is free.

    Raises:
        UsageError: there is no such file, or it holds no artifact.
        Tampered: its content is not what was saved.
        MachineError: the disk is full or the store cannot be written.
    """
    from mlpack.store.transfer import unpack

    return unpack(Path(file).expanduser(), store_folder(store))
