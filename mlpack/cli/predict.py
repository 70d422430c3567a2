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
    typer.Option(
        "--data",
        metavar="PATH",
        help="Inputs: .npz, a folder of .npy, file.py:function; texts in a table or "
        "a folder of images where the artifact prepares those.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="What to write: .npz for outputs, .csv or .jsonl for labels."),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAMES", help="What a table holds where: text=review. Default: as it was made."),
]
SkipBad = Annotated[
    int, typer.Option("--skip-bad", metavar="N", min=0, help="Leave out up to N samples that cannot be used.")
]
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
    columns: Columns = None,
    skip_bad: SkipBad = 0,
    *,
    force: Force = False,
    store: Store = None,
) -> None:
    """Run an artifact's model over data and write what it answers: outputs as .npz, or labels as .csv or .jsonl."""
    from mlpack.api.predict import predict

    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"{missing} is missing", "mlpack predict REF --data inputs.npz --out answers.npz")
    with screen.progress() as reporter:
        done = predict(
            reference,
            data=data,
            out=out,
            batch=batch,
            threads=threads,
            columns=columns,
            skip_bad=skip_bad,
            force=force,
            store=store,
            reporter=reporter,
        )
    screen.result(done.document(), done)
