"""`mlpack diff`: what differs between two artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.cli.options import Ref, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(screen: Screen, a: Ref, b: Ref, store: Store = None) -> None:
    """Show what differs between two artifacts."""
    from mlpack.api.diff import diff

    found = diff(a, b, store)

    def human(screen: Screen) -> None:
        if not found.differences:
            screen.print(f"{found.a} and {found.b} do not differ in anything that counts")
            return
        rows = [(each.part, each.what, _cell(each.a), _cell(each.b)) for each in found.differences]
        screen.table(("part", "what", found.a, found.b), rows)

    screen.result(found.model_dump(mode="json"), human)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(_cell, value))
    return str(value)
