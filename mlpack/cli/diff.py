"""`mlpack diff`: what differs between two artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Ref, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="Write it as one HTML page too.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def command(screen: Screen, a: Ref, b: Ref, store: Store = None, out: Out = None, *, force: Force = False) -> None:
    """Show what differs between two artifacts."""
    from mlpack.api.diff import diff

    found = diff(a, b, store, out=out, force=force)
    screen.result(found.model_dump(mode="json"), found)
