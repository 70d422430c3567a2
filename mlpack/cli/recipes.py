"""`mlpack recipes`: the recipes that come with mlpack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(screen: Screen) -> None:
    """List the recipes that come with mlpack."""
    from mlpack.api.recipes import recipes

    found = recipes()

    def human(screen: Screen) -> None:
        if not found:
            screen.print("no recipes come with this installation")
            return
        screen.table(("recipe", "what it does"), [(each.name, each.description) for each in found])
        screen.print(f"they lie in {found[0].path.parent}; run one: mlpack optimize {found[0].path}")

    screen.result({"recipes": [each.model_dump(mode="json") for each in found]}, human)
