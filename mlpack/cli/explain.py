"""`mlpack explain`: which layers cost the accuracy, which parts the time, and what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.cli.options import MaybeRef, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(screen: Screen, reference: MaybeRef = None, store: Store = None) -> None:
    """Say which layers cost an artifact its accuracy, which parts its time, and what to try."""
    from mlpack.api.explain import explain

    with screen.progress() as progress:
        found = explain(reference, store, reporter=progress)
    screen.result(found.model_dump(mode="json"), found)
