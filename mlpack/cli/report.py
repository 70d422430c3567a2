"""`mlpack report`: an artifact as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import MaybeRef, Store
from mlpack.core.wording import size

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE.html", help="The file to write. Default: NAME-VERSION.html in this folder."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def command(
    screen: Screen,
    reference: MaybeRef = None,
    out: Out = None,
    *,
    force: Force = False,
    store: Store = None,
) -> None:
    """Write an artifact's report as one HTML page that needs no network."""
    from mlpack.api.report import report

    done = report(reference, out, store, force=force)
    screen.result(done.document(), f"the report of {done.artifact}, {size(done.size_bytes)}: {done.path}")
