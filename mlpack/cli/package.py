"""`mlpack package`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(
    screen: Screen,
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help="NAME, NAME@3, NAME@TAG, a path; else the only one.")
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="The server: triton or fastapi.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to make; ./NAME-VERSION-RUNTIME without it.")
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Largest batch that the server may form.")] = 8,
    queue_delay_ms: Annotated[
        float, typer.Option("--queue-delay-ms", help="Longest wait for batch mates, in ms.")
    ] = 2.0,
    instances: Annotated[int, typer.Option("--instances", help="Copies of the model that run side by side.")] = 1,
    fallback: Annotated[
        str | None,
        typer.Option(metavar="onnxruntime", help="Where no engine can be built on the card, serve the graph by this."),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also package a candidate.")] = False,
    store: Annotated[Path | None, typer.Option("--store", help="The store, ./artifacts without it.")] = None,
) -> None:
    """Lay an artifact out for a server: model, configuration, golden samples, client, Dockerfile."""
    from mlpack.api.package import package
    from mlpack.errors import UsageError
    from mlpack.runtimes import RUNTIMES

    if not runtime:
        raise UsageError(
            "which server? --runtime is missing",
            " or ".join(f"--runtime {name}" for name in RUNTIMES.names()),
        )
    packaged = package(
        ref,
        runtime=runtime,
        out=out,
        max_batch=max_batch,
        queue_delay_ms=queue_delay_ms,
        instances=instances,
        fallback=fallback,
        force=force,
        store=store,
    )
    screen.result(packaged.model_dump(mode="json"), packaged)
