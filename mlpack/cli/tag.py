"""`mlpack tag`: point a tag at a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Ref, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    reference: Ref,
    name: Annotated[str, typer.Argument(metavar="TAG", help="The tag, such as prod.")],
    store: Store = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also tag a candidate.")] = False,
) -> None:
    """Point a tag, such as prod, at a version."""
    from mlpack.api.tag import tag

    done = tag(reference, name, store, candidates="accept" if force else "refuse")
    before = "" if done.before is None else f" (was {done.name}@{done.before})"
    screen.result(done.model_dump(mode="json"), f"{done.tag} -> {done.name}@{done.version}{before}")
