"""`mlpack build`: finish an artifact on the machine that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlpack.cli.options import MaybeRef, Store

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

Flag = typer.Option


def command(
    screen: Screen,
    reference: MaybeRef = None,
    model: Annotated[
        str | None, Flag(metavar="PATH", help="Where the original lies, to time it beside. Default: where it lay.")
    ] = None,
    factory: Annotated[str | None, Flag(metavar="FUNCTION", help="What makes the original's module, if moved.")] = None,
    data: Annotated[
        str | None, Flag(metavar="PATH", help="The data it was made with, or other data to judge it by.")
    ] = None,
    target: Annotated[
        str | None, Flag(metavar="NAME|FILE", help="Build for this target, which has to be here; cpu is this machine.")
    ] = None,
    backend: Annotated[
        str | None,
        Flag(metavar="NAME", help="The backend that will serve. Default: TensorRT on a card, else the best."),
    ] = None,
    library: Annotated[
        Literal["auto", "tensorrt", "tensorrt_rtx"] | None, Flag(help="What builds a TensorRT engine.")
    ] = None,
    max_drop: Annotated[str | None, Flag(metavar="LIMIT", help="1% or 0.8pt. Default: the artifact's limit.")] = None,
    threads: Annotated[int | None, Flag(min=1, help="Threads. Default: the CPUs this process may use.")] = None,
    build_host: Annotated[
        str | None,
        Flag(metavar="USER@HOST", help="Build on that machine over ssh; what is made comes back into this store."),
    ] = None,
    build_command: Annotated[str, Flag(metavar="PATH", help="What starts mlpack there.")] = "mlpack",
    store: Store = None,
) -> None:
    """Finish an artifact on the machine that it is for: compile, score and time it there, as a new version."""
    from mlpack.api.build import build
    from mlpack.cli.optimize import tell

    with screen.progress() as reporter:
        done = build(
            reference,
            model=model,
            factory=factory,
            data=data,
            target=target,
            backend=backend,
            library=library,
            max_drop=max_drop,
            threads=threads,
            build_host=build_host,
            build_command=build_command,
            store=store,
            reporter=reporter,
        )
    tell(screen, done)
