"""`mlpack load`: takes a saved artifact into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

File = Annotated[Path, typer.Argument(metavar="FILE.tar", help="A file that `mlpack save` wrote.")]


def command(screen: Screen, file: File, store: Store = None) -> None:
    """Check a saved artifact and take it into the store."""
    from mlpack.api.load import load

    done = load(file, store)
    this = done.stored.artifact
    named = f"{this.name}@{this.version}"
    said = f"{named} lies in {done.stored.path}"
    if done.there:
        said = f"{named} was there already: {done.stored.path}"
    elif done.renumbered is not None:
        said = f"{said} (it was saved as version {done.renumbered}, which another artifact has here)"
    document = {
        "name": this.name, "version": this.version, "digest": this.digest, "path": str(done.stored.path),
        "there": done.there, "renumbered": done.renumbered,
    }  # fmt: skip
    screen.result(document, said)
