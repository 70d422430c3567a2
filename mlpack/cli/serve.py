"""`mlpack serve`: a quick server for an artifact, on this machine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import MaybeRef, Python, Server, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    reference: MaybeRef = None,
    runtime: Annotated[str, typer.Option("--runtime", help="The server: fastapi, triton or torchserve.")] = "fastapi",
    port: Annotated[int, typer.Option("--port", help="Where HTTP is spoken, on 127.0.0.1; 0: a free one.")] = 8000,
    python: Python = None,
    server: Server = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also serve a candidate.")] = False,
    store: Store = None,
) -> None:
    """Package an artifact, start its server on this machine's own address, and stop it at Ctrl-C or SIGTERM.

    The document for programs is written as soon as the server is ready.
    """
    from mlpack.api.serve import serve
    from mlpack.cli.app import INTERRUPTED, TERMINATED, Terminated

    with ExitStack() as stack:
        with screen.progress() as reporter:
            started = serve(
                reference,
                runtime=runtime,
                port=port,
                python=python,
                server=server,
                force=force,
                store=store,
                reporter=reporter,
            )
            serving = stack.enter_context(started)
        screen.result(serving.document(), serving)
        # Now: who reads it waits for the address, and not for the end.
        screen.finish()
        # Being stopped is how this command ends, and no failure to tell of.
        try:
            serving.wait()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Terminated:
            code = TERMINATED
        screen.say("stopping")
    raise typer.Exit(code)
