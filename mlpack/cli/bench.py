"""`mlpack bench`: how fast is it, against what, and where does the time go?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlpack.cli.options import Store
from mlpack.errors import GateInconclusive, UsageError

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[REF|MODEL…]",
        show_default=False,
        help="Artifacts (NAME, NAME@3, NAME@TAG, a path) or models (a file, module:function). Left out: the artifact "
        "that mlpack.toml names, or the only one there is.",
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(metavar="NAME|all", help="Run on this backend, or on all that can. Default: its own; torch eager."),
]
Batch = Annotated[str | None, typer.Option(metavar="N,N", help="Batch sizes. Default: 1,8.")]
Swept = Annotated[bool, typer.Option("--sweep", help="Batch sizes 1, 2, 4 … 64: throughput, and where it ends.")]
MaxP99 = Annotated[str | None, typer.Option(metavar="TIME", help="With a sweep: the best batch within 20ms, say.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=N,N", help="Time this one shape on synthetic rows: x=8,128. Repeatable."),
]
Other = Annotated[str | None, typer.Option("--against", metavar="REF", help="Say how much faster it is than this.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads. Default: the CPUs this process may use.")]
Data = Annotated[
    str | None, typer.Option(metavar="PATH", help="Rows to time on. Default: the artifact's golden inputs.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="SPEC", help="An input of a model, as in image=float32:batch,3,224,224."),
]
Factory = Annotated[
    str | None, typer.Option(metavar="REF", help="For a state dict: the function that makes its module.")
]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load a pickled module, which may run any code.")]
Launches = Annotated[
    int | None, typer.Option(min=2, help="Fresh processes per contender; intervals are over them. Default: 5.")
]
Seconds = Annotated[
    float | None,
    typer.Option(help="Time for one batch size in one launch (default 0.4), or for one load of a server (10)."),
]
Require = Annotated[
    Literal["steady"] | None, typer.Option(help="steady: exit 6 where other work disturbed the timing.")
]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Measure a running server instead: http://HOST:PORT or grpc://HOST:PORT."),
]
ServedModel = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="With --server: which model. Default: the only one.")
]
Rate = Annotated[
    str | None,
    typer.Option(metavar="N,N", help="With --server: requests per second that come whatever the server does."),
]
Clients = Annotated[
    str | None,
    typer.Option(metavar="N,N", help="With --server: clients that each wait for their answer. Default: 1,4."),
]


def command(
    screen: Screen,
    models: Models = None,
    backend: Backend = None,
    batch: Batch = None,
    shapes: Shapes = None,
    against: Other = None,
    max_p99: MaxP99 = None,
    threads: Threads = None,
    data: Data = None,
    inputs: Inputs = None,
    factory: Factory = None,
    launches: Launches = None,
    seconds: Seconds = None,
    store: Store = None,
    server: Server = None,
    model: ServedModel = None,
    rate: Rate = None,
    clients: Clients = None,
    require: Require = None,
    *,
    sweep: Swept = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Time models in turns, each launch in a fresh process, with intervals and a table of components.

    With --server: the latency of a running server under load, and where the time of a request goes.
    """
    if server is not None:
        from mlpack.cli.bench_server import measure

        _refuse(
            {
                "MODEL": models, "--backend": backend, "--shape": shapes, "--against": against, "--threads": threads,
                "--input": inputs, "--factory": factory, "--launches": launches, "--store": store,
                "--allow-pickle": allow_pickle, "--sweep": sweep, "--max-p99": max_p99, "--require": require,
            },
            "is for models that run here, not for a server",
        )  # fmt: skip
        measure(screen, server, model, rate=rate, clients=clients, seconds=seconds, batch=batch, data=data)
        return
    _refuse({"--model": model, "--rate": rate, "--clients": clients}, "is for a running server", "--server URL")
    from mlpack.api.bench import LAUNCHES, SECONDS, bench
    from mlpack.measure.sweep import BATCHES

    if sweep and batch is not None:
        raise UsageError("--sweep chooses the batch sizes", "leave --batch or --sweep out")
    sizes = list(BATCHES) if sweep else None if batch is None else _sizes(batch)
    with screen.progress() as reporter:
        done = bench(
            models,
            backend=backend,
            batches=sizes,
            shapes=shapes or (),
            against=against,
            max_p99=max_p99,
            threads=threads,
            data=data,
            inputs=inputs or (),
            factory=factory,
            allow_pickle=allow_pickle,
            launches=launches or LAUNCHES,
            seconds=SECONDS if seconds is None else seconds,
            store=store,
            reporter=reporter,
        )
    for reason in done.left_out:
        screen.say(f"left out: {reason}")
    for note in done.notes:
        screen.warn(note)
    screen.result(done.document(), done)
    if require == "steady" and not done.steady:
        raise GateInconclusive("the timing was disturbed: the notes say by what", "run it again on an idle machine")


def _refuse(given: dict[str, object], why: str, hint: str = "") -> None:
    for flag, value in given.items():
        if value:
            raise UsageError(f"{flag} {why}", hint or f"leave {flag} out, or --server")


def _sizes(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
        raise UsageError(f"--batch {text}: batch sizes are whole numbers with commas between", "--batch 1,8")
    return [int(word) for word in words]
