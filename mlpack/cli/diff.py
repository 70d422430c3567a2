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

    def human(screen: Screen) -> None:
        if not found.differences:
            screen.print(f"{found.a} and {found.b} do not differ in anything that counts")
        else:
            rows = [(each.part, each.what, _cell(each.a), _cell(each.b)) for each in found.differences]
            screen.table(("part", "what", found.a, found.b), rows)
        if found.path is not None:
            screen.print(f"the page: {found.path}")

    screen.result(found.model_dump(mode="json"), human)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(_cell, value))
    return str(value)
