"""`mlpack.tag()`: point a tag at a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlpack.api.lookup import artifact
from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from pathlib import Path


class Tagged(Frozen):
    """A tag, where it points now, and where it pointed before (None: it is new)."""

    name: str
    tag: str
    version: int
    before: int | None


def tag(
    reference: str,
    tag: str,
    store: str | Path | None = None,
    candidates: Literal["refuse", "accept"] = "refuse",
) -> Tagged:
    """Point `tag` at the artifact that `reference` means.

    Raises:
        UsageError: no such artifact, no good tag, or a candidate and `candidates` is "refuse".
        MachineError: the store cannot be written.
    """
    from mlpack.store.tags import set_tag

    stored = artifact(reference, store)
    before = set_tag(stored, tag, candidates=candidates)
    return Tagged(name=stored.artifact.name, tag=tag, version=stored.artifact.version, before=before)
