"""Arguments and options that several commands take, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_GRAMMAR = "NAME, NAME@3, NAME@TAG, NAME@sha256:…, or a path with a /"

Ref = Annotated[str, typer.Argument(metavar="REF", help=f"An artifact: {_GRAMMAR}.")]
MaybeRef = Annotated[
    str | None,
    typer.Argument(
        metavar="[REF]",
        show_default=False,
        help=f"An artifact: {_GRAMMAR}. Left out: the one that mlpack.toml names, or the only one there is.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="The store. Default: MLPACK_STORE, mlpack.toml, ./artifacts."),
]
Python = Annotated[
    Path | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="Interpreter of an environment that has what the server needs. Default: the one that runs mlpack; for "
        "Triton python3 on the PATH.",
    ),
]
Server = Annotated[
    Path | None,
    typer.Option(
        "--server",
        metavar="PATH",
        help="The tritonserver to start. Default: MLPACK_TRITONSERVER, that of --python's environment, the PATH.",
    ),
]
