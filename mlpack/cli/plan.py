"""`mlpack plan`: what would run, and what would stand in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlpack.cli.recipe_flags import RecipeFlags, takes_recipe_flags

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

Why = Annotated[bool, typer.Option("--why", help="Say what has changed for each stage that ran before.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="As if the cache were empty.")]


@takes_recipe_flags
def command(screen: Any, flags: RecipeFlags, *, why: Why = False, fresh: Fresh = False) -> None:
    """Say what `mlpack optimize` with the same flags would run, what is kept, and what this machine lacks."""
    show_plan(screen, flags, why=why, fresh=fresh)


def show_plan(screen: Screen, flags: RecipeFlags, *, why: bool = False, fresh: bool = False) -> None:
    """The plan of these flags; `mlpack optimize --dry-run` shows it too."""
    from mlpack.api.plan import plan
    from mlpack.api.plan_summary import plan_summary

    with screen.progress() as reporter:
        found = plan(flags.model, fresh=fresh, reporter=reporter, **flags.wanted)

    screen.result(found.document(), lambda screen: screen.show(plan_summary(found, why=why)))
