"""`mlpack gc`: remove leftovers and cached work that nothing refers to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Store
from mlpack.core.wording import count, size

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    store: Store = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    older_than: Annotated[
        float,
        typer.Option("--older-than", min=0, metavar="HOURS", help="Keep cached work that is younger than this."),
    ] = 1.0,
) -> None:
    """Remove leftovers of dead processes, and cached work that no artifact of the store refers to."""
    from mlpack.api.gc import gc

    found = gc(store, mode="list" if dry_run else "remove", younger_than_s=older_than * 3600)
    total = sum(each.size_bytes for each in found)
    verb = "would remove" if dry_run else "removed"
    entries = [each.model_dump(mode="json") for each in found]

    def human(screen: Screen) -> None:
        if found and dry_run:
            rows = [(each.kind, size(each.size_bytes), each.path) for each in found]
            screen.table(("kind", "size", "path"), rows, right=("size",))
        screen.print(f"{verb} {count(len(found), 'thing')}, {size(total)}")

    screen.result({"removed": not dry_run, "size_bytes": total, "entries": entries}, human)
