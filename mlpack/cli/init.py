"""`mlpack init`: looks at a model and data, writes mlpack.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlpack.api.init import Found
    from mlpack.cli.screen import Screen

Model = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", show_default=False, help="Left out: what lies in this folder.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="DATA", help="Left out: what lies in this folder.")]
Factory = Annotated[
    str | None, typer.Option("--factory", metavar="FILE.py:FUNCTION", help="Makes the module for weights alone.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an mlpack.toml that is there.")]


def command(
    screen: Screen, model: Model = None, data: Data = None, factory: Factory = None, *, force: Force = False
) -> None:
    """Look at a model and data, and write a commented mlpack.toml into this folder."""
    from mlpack.api.init import init

    done = init(model, data, factory=factory, force=force)

    def human(screen: Screen) -> None:
        screen.print(f"model  {_said(done.model, 'none found here: name it in the file')}")
        screen.print(f"data   {_said(done.dataset, 'none found here: name it in the file')}")
        for each in (*done.models, *done.data):
            if not each.usable:
                screen.print(f"       {each.path} cannot be used: {each.what}")
        screen.print(f"written: {done.path}")
        screen.print("Next: mlpack plan, then mlpack optimize")

    screen.result(done.document(), human)


def _said(found: Found | None, nothing: str) -> str:
    return nothing if found is None else f"{found.path}: {found.what}"
