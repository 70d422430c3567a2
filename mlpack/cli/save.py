"""`mlpack save`: an artifact as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Ref, Store
from mlpack.core.wording import size

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

File = Annotated[Path, typer.Argument(metavar="FILE.tar", help="The file to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def command(screen: Screen, reference: Ref, file: File, store: Store = None, *, force: Force = False) -> None:
    """Check an artifact and write it as one tar, to be loaded into another store."""
    from mlpack.api.save import save

    done = save(reference, file, store, force=force)
    screen.result(done.document(), f"{done.artifact}, {size(done.size_bytes)}: {done.path}")
