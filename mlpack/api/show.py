"""`mlpack.show()`: one artifact, as it was published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.api.lookup import artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.artifact import Stored


def show(reference: str | None = None, store: str | Path | None = None) -> Stored:
    """The artifact and its folder. Without a reference: the one the settings name, or the only one there is.

    Raises:
        UsageError: nothing is there under this reference; the hint has what is nearest.
        Tampered: its `artifact.json` is damaged.
    """
    return artifact(reference, store)
