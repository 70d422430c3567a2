"""The flags that `optimize` and `plan` share: what is handed in and what is wanted."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlpack.api.wanted import Wanted

Numerics = Literal["fp16", "bf16", "int8", "int4", "fp8"]
CalibrationMethod = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
_NUMERICS: tuple[Numerics, ...] = ("fp16", "bf16", "int8", "int4", "fp8")


@dataclass(frozen=True)
class RecipeFlags:
    """One field per flag; the defaults say that nothing was given."""

    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL|RECIPE.yaml]", help="A model file, module:function or path/file.py:function, "
                       "or a recipe. Left out: the one that mlpack.toml names."),
    ] = None  # fmt: skip
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Labelled data: .npz, a folder of .npy, file.py:function, texts in a .csv, "
                     ".jsonl or .parquet, or a folder of images with one subfolder per class."),
    ] = None  # fmt: skip
    calibration: Annotated[
        str | None, typer.Option(metavar="PATH", help="Data to find int8 ranges on; else a part of --data.")
    ] = None
    train: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Data to train on, labelled or not, of which no sample may be in --data."),
    ] = None
    distill: Annotated[
        bool, typer.Option("--distill", help="Let what is smaller learn from --train to answer as the original.")
    ] = False
    student: Annotated[
        str | None,
        typer.Option(metavar="REF", help="A smaller module of yours that learns it: file.py:function."),
    ] = None
    fp16: Annotated[bool, typer.Option("--fp16", help="Promise fp16.")] = False
    bf16: Annotated[bool, typer.Option("--bf16", help="Promise bf16.")] = False
    int8: Annotated[bool, typer.Option("--int8", help="Promise int8: the fastest kind of it inside the limit.")] = False
    int4: Annotated[bool, typer.Option("--int4", help="Promise int4.")] = False
    fp8: Annotated[bool, typer.Option("--fp8", help="Promise fp8.")] = False
    prune: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Before anything else take this share of the FLOPs (30%) out of a torch "
                     "module: channels, neurons and heads that it can do without. Needs mlpack-toolchain[prune]."),
    ] = None  # fmt: skip
    force: Annotated[
        bool, typer.Option("--force", help="Prune by a mask (prune.pattern) also where the target gains nothing.")
    ] = False
    auto: Annotated[
        bool,
        typer.Option("--auto", help="The fastest of all inside the limit, as without any of these; and where something "
                     "faster misses it, the same with its most sensitive layers in float."),
    ] = False  # fmt: skip
    smallest: Annotated[
        bool,
        typer.Option("--smallest", help="Of all inside the limit, and no slower than float, the smallest: not the "
                     "fastest."),
    ] = False  # fmt: skip
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="90s, 20m, 1.5h: then the best so far is taken. Default: none.")
    ] = None
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Hardware to make it for: mlpack targets, or a .yaml file that describes it. "
                     "Default: this machine."),
    ] = None  # fmt: skip
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="top1, f1, mse, … or file.py:function. Default: from the labels.")
    ] = None
    output: Annotated[str | None, typer.Option(metavar="NAME", help="The output that the metric reads.")] = None
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="For texts: where tokenizer.json lies. Default: the model's.")
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="What a table holds where: text=review,label=stars (text_pair, group, "
                     "cluster). Default: by the usual names."),
    ] = None  # fmt: skip
    preprocess: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="For images: imagenet, imagenet:160, unit, … or a YAML file of options; "
                     "file.py:function for your own. Default: the model folder's."),
    ] = None  # fmt: skip
    postprocess: Annotated[
        str | None, typer.Option(metavar="REF", help="What an answer becomes for people: file.py:function.")
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Names of the classes in the order of their numbers: no,yes or a file with "
                     "one a line. Default: the model folder's, else the data's, in alphabetical order."),
    ] = None  # fmt: skip
    max_length: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=1, help="Where texts are cut. Default: the tokenizer's limit.")
    ] = None
    skip_bad: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Leave out up to N samples that cannot be used. Default: 0.")
    ] = None
    max_drop: Annotated[
        str | None,
        typer.Option(metavar="LIMIT", help="1% of the original's metric, or 0.8pt absolute. Default: 1%."),
    ] = None
    max_error_increase: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="In place of --max-drop, near the ceiling: 10% more errors at most."),
    ] = None
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Publish whatever the drop.")] = False
    factory: Annotated[
        str | None, typer.Option(metavar="REF", help="For a state dict: the function that makes its module.")
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SPEC", help="An input, as in image=float32:batch,3,224,224. Repeatable."),
    ] = None
    static_batch: Annotated[bool, typer.Option("--static-batch", help="Keep the batch size fixed.")] = False
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a pickled module, which may run any code in it.")
    ] = False
    weights: Annotated[
        Literal["memory", "disk"] | None,
        typer.Option(help="Of a Hugging Face folder: in memory together, or read from the disk as they are needed. "
                     "Default: as this machine's memory allows."),
    ] = None  # fmt: skip
    calibration_method: Annotated[
        CalibrationMethod | None, typer.Option(help="How static int8 ranges are found. Default: minmax.")
    ] = None
    ranges: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Static int8 with the ranges of an earlier run: its reports/quantize.json."),
    ] = None
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME|all", help="onnxruntime or openvino (default: the faster one); aotinductor or "
                     "torchscript, files of torch's own; all: every one of these, which takes minutes more."),
    ] = None  # fmt: skip
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. Default: the CPUs this process may use.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The artifact's name. Default: from the model's file.")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.OPTION=VALUE", help="Any option of a stage. Repeatable."),
    ] = None

    @property
    def numerics(self) -> Numerics | None:
        """The one numerics flag, or None for auto.

        Raises:
            UsageError: more than one was given.
        """
        given = [name for name in _NUMERICS if getattr(self, name)]
        if len(given) + self.auto > 1:
            flags = ", ".join(f"--{name}" for name in (*given, *(("auto",) if self.auto else ())))
            raise UsageError(f"{flags}: these flags exclude one another", "give one of them, or none")
        return given[0] if given else None

    @property
    def wanted(self) -> Wanted:
        """The keywords of `mlpack.optimize` and `mlpack.plan` that these flags are.

        Raises:
            UsageError: flags that exclude one another.
        """
        from mlpack.api.wanted import Wanted

        plain = {word: getattr(self, word) for word in Wanted.__annotations__ if hasattr(self, word)}
        return cast("Wanted", {**plain, "numerics": self.numerics, "max_drop": self.limit})

    @property
    def limit(self) -> str | None:
        """The limit's text; `none` for --no-limit.

        Raises:
            UsageError: a limit and --no-limit.
        """
        if sum((self.no_limit, self.max_drop is not None, self.max_error_increase is not None)) > 1:
            raise UsageError("--max-drop, --max-error-increase and --no-limit exclude one another", "give one of them")
        if self.max_error_increase is not None:
            return f"{self.max_error_increase} errors"
        return "none" if self.no_limit else self.max_drop


def takes_recipe_flags(function: Callable[..., None]) -> Callable[..., None]:
    """`function(screen, flags: RecipeFlags, …)` as a command: each field becomes a parameter of its own."""
    hints = get_type_hints(RecipeFlags, include_extras=True)
    names = [field.name for field in fields(RecipeFlags)]
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(RecipeFlags)
    ]

    @functools.wraps(function)
    def command(screen: Any, **given: Any) -> None:
        flags = RecipeFlags(**{name: given.pop(name) for name in names})
        function(screen, flags, **given)

    signature = inspect.signature(function, eval_str=True)
    screen, _, *own = signature.parameters.values()
    kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    parameters = [screen, *shared, *kept]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    del command.__wrapped__
    return command
