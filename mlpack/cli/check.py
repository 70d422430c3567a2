"""`mlpack check`: does a package answer as recorded?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import Python, Server

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="The folder that `mlpack package` made.")],
    python: Python = None,
    server: Server = None,
    *,
    container: Annotated[bool, typer.Option("--container", help="In its image: docker or podman.")] = False,
) -> None:
    """Start a package's server, replay the golden samples over the wire, compare, measure, stop it.

    Exit code 5 where an answer is not the recorded one, or a file is not the packaged one.
    """
    from mlpack.api.check import check, refuse_different

    with screen.progress() as reporter:
        done = check(package, python=python, server=server, container=container, reporter=reporter)
    screen.result(done.document(), done)
    refuse_different(done)
