"""`mlpack list`: what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this artifact.")] = None,
    store: Store = None,
) -> None:
    """List what the store holds, oldest version first."""
    from mlpack.api.list_artifacts import list_artifacts

    found = list_artifacts(name, store)
    document = {"store": str(found.store), "artifacts": [each.model_dump(mode="json") for each in found]}
    screen.result(document, found)
