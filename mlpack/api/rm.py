"""`mlpack.rm()`: remove a version from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlpack.api.lookup import artifact
from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from pathlib import Path


class Removed(Frozen):
    """A version that is gone, and what was in it in bytes."""

    name: str
    version: int
    size_bytes: int


def rm(reference: str, store: str | Path | None = None, tagged: Literal["refuse", "remove"] = "refuse") -> Removed:
    """Remove one version. Its number is never given again.

    Raises:
        UsageError: no such version, or a tag points at it and `tagged` is "refuse".
        MachineError: the store cannot be written.
    """
    from mlpack.store.remove import remove_version

    stored = artifact(reference, store)
    size_bytes = remove_version(stored, tagged=tagged)
    return Removed(name=stored.artifact.name, version=stored.artifact.version, size_bytes=size_bytes)
