"""`mlpack predict`: what an artifact answers on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.cli.options import MaybeRef, Store
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="Inputs: .npz, a folder of .npy, or file.py:function."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.npz", help="The file to write.")]
Batch = Annotated[
    int | None, typer.Option("--batch", metavar="N", min=1, help="Samples per call. Default: 32, or what fits.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads. Default: the CPUs this process may use.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def command(
    screen: Screen,
    reference: MaybeRef = None,
    data: Data = None,
    out: Out = None,
    batch: Batch = None,
    threads: Threads = None,
    *,
    force: Force = False,
    store: Store = None,
) -> None:
    """Run an artifact's model over data and write its outputs as one .npz."""
    from mlpack.api.predict import predict

    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"{missing} is missing", "mlpack predict REF --data inputs.npz --out answers.npz")
    with screen.progress() as reporter:
        done = predict(
            reference, data=data, out=out, batch=batch, threads=threads, force=force, store=store, reporter=reporter
        )
    screen.result(done.document(), done)
