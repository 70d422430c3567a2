"""`mlpack logs`: the last runs and their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlpack.api.logs import Log
    from mlpack.cli.screen import Screen

_SHOWN = 20


def command(
    screen: Screen,
    which: Annotated[
        str | None,
        typer.Argument(metavar="[LOG]", help="Print this one: its number (1 is the newest) or file."),
    ] = None,
) -> None:
    """List the last runs, or print the log of one on stdout."""
    from mlpack.api.logs import logs

    found = logs(which)

    def human(screen: Screen) -> None:
        if which is not None:
            screen.pipe(found[0].path.read_text(encoding="utf-8", errors="replace"))
        elif not found:
            screen.print("no run has left a log yet")
        else:
            rows = [_row(each) for each in found[:_SHOWN]]
            screen.table(("log", "started", "command", "exit", "file"), rows, right=("log", "exit"))
            screen.print(f"in {found[0].path.parent}; mlpack logs 1 prints the newest")

    document: dict[str, object] = {"logs": [each.model_dump(mode="json") for each in found]}
    if which is not None:
        document["text"] = found[0].path.read_text(encoding="utf-8", errors="replace")
    screen.result(document, human)


def _row(log: Log) -> tuple[str, ...]:
    ended = "" if log.exit_code is None else str(log.exit_code)
    return (str(log.number), log.started[:19], log.command, ended, log.path.name)
