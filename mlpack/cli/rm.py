"""`mlpack rm`: remove a version from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Ref, Store
from mlpack.core.wording import size

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    reference: Ref,
    store: Store = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also a tagged version; its tags go too.")] = False,
) -> None:
    """Remove a version from the store; its number is never given again."""
    from mlpack.api.rm import rm

    done = rm(reference, store, tagged="remove" if force else "refuse")
    screen.result(done.model_dump(mode="json"), f"removed {done.name}@{done.version} ({size(done.size_bytes)})")
