"""`mlpack list`: what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Store
from mlpack.cli.wording import size, speed

if TYPE_CHECKING:
    from mlpack.api.list_artifacts import Listed
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this artifact.")] = None,
    store: Store = None,
) -> None:
    """List what the store holds, oldest version first."""
    from mlpack.api.list_artifacts import list_artifacts
    from mlpack.api.lookup import store_folder

    found = list_artifacts(name, store)
    folder = store_folder(store)
    document = {"store": str(folder), "artifacts": [each.model_dump(mode="json") for each in found]}

    def human(screen: Screen) -> None:
        if not found:
            screen.print(f"{folder} is empty; mlpack optimize MODEL --data DATA fills it")
            return
        columns = ("artifact", "verdict", "numerics", "backend", "target", "size", "speed", "tags")
        screen.table(columns, map(_row, found), title=str(folder), right=("size", "speed"))
        for each in found:
            if each.problem:
                screen.warn(each.problem)

    screen.result(document, human)


def _row(each: Listed) -> tuple[str | None, ...]:
    label = f"{each.name}@{each.version}"
    if each.problem:
        return (label, "unreadable")
    verdict = each.verdict if each.status == "final" else f"{each.verdict} ({each.status})"
    shown = (each.numerics, each.backend, each.target, size(each.size_bytes), speed(each.speedup))
    return (label, verdict, *shown, " ".join(each.tags))
