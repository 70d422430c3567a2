"""Where a command looks when it is told nothing: the settings' store and name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.settings import load_settings
from mlpack.errors import Tampered

if TYPE_CHECKING:
    from mlpack.core.artifact import Stored
    from mlpack.core.dataset import RawOptions
    from mlpack.core.model import Model


def store_folder(store: str | Path | None) -> Path:
    """The store that is named, or that of the settings."""
    return Path(store).absolute() if store else load_settings(Path.cwd()).store


def cache_folder() -> Path:
    """The cache of the settings."""
    return load_settings(Path.cwd()).cache


def artifact(reference: str | None, store: str | Path | None) -> Stored:
    """The artifact that a reference means; None: the one the settings name, or the only one in the store.

    Raises:
        UsageError: nothing is there under this reference; the hint has what is nearest.
        Tampered: its `artifact.json` is damaged.
    """
    from mlpack.store.find import find

    return find(store_folder(store), reference, load_settings(Path.cwd()).name)


def intact_model(stored: Stored) -> Model:
    """The model of an artifact, whose files are there; what is in them, `mlpack verify` checks.

    Raises:
        Tampered: a file is missing.
    """
    for relative in stored.artifact.files:
        if not (stored.path / relative).is_file():
            named = f"{stored.artifact.name}@{stored.artifact.version}"
            raise Tampered(f"{stored.path / relative} is missing", f"mlpack verify {named}")
    return stored.model


def raw_options(stored: Stored, columns: str | None = None, **changed: Any) -> RawOptions | None:
    """How raw data is read for an artifact: with its own pipeline, and the columns that its own data had."""
    from mlpack.api.preprocessing import columns_of
    from mlpack.core.dataset import RawOptions

    record = stored.artifact.pipeline
    if record is None or record.preprocess is None:
        return None
    known = stored.artifact.recipe.get("data", {}).get("columns")
    named = columns_of(columns if columns is not None else known)
    return RawOptions(pipeline=str(stored.path / record.path), columns=named, **changed)
