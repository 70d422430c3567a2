"""`mlpack convert`: a model as a file for devices that mlpack does not serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.errors import UsageError

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A torch model: a file, module:function, file.py:function. Left out: the one that mlpack.toml names.",
    ),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="FORMAT", help="coreml: Apple's devices; litert: phones, small boards.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="A new folder. Default: ./NAME-FORMAT.")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="Rows to export the model on. Default: synthetic ones.")
]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", metavar="SPEC", help="An input, as in image=float32:batch,3,224,224.")
]
Factory = Annotated[
    str | None, typer.Option("--factory", metavar="FUNCTION", help="For a state dict: file.py:function.")
]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load a pickle, which may run any code.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.OPTION=VALUE", help="An option: convert_coreml.precision=float16."),
]


def command(
    screen: Screen,
    model: Model = None,
    to: To = None,
    out: Out = None,
    data: Data = None,
    inputs: Inputs = None,
    factory: Factory = None,
    settings: Settings = None,
    *,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write a torch model as a file of another format, and say what is not known of it where it cannot run here."""
    from mlpack.api.convert import convert

    if to is None:
        raise UsageError("--to is missing", "mlpack convert MODEL --to coreml")
    with screen.progress() as reporter:
        done = convert(
            model,
            to=to,
            out=out,
            data=data,
            inputs=inputs or (),
            factory=factory,
            allow_pickle=allow_pickle,
            settings=settings or (),
            reporter=reporter,
        )
    screen.result(done.document(), done)
