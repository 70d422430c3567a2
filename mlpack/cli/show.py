"""`mlpack show`: what an artifact is and how it was proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.cli.options import MaybeRef, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(screen: Screen, reference: MaybeRef = None, store: Store = None) -> None:
    """Show what an artifact is and how it was proven."""
    from mlpack.api.show import show

    found = show(reference, store)
    document = found.artifact.model_dump(mode="json", by_alias=True)
    screen.result({**document, "path": str(found.path), "tags": found.tags}, found)
