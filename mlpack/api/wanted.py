"""What `optimize` and `plan` can be asked for, written down once, and the recipe that it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from mlpack.api.flags import read_recipe, recipe_of, spanned, with_set
from mlpack.api.training import check_trains, timed
from mlpack.core.recipe import DataSpec, SourceSpec
from mlpack.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.api.flags import Numerics
    from mlpack.core.recipe import Recipe
    from mlpack.core.settings import Settings


class Wanted(TypedDict, total=False):
    """The keywords that `optimize` and `plan` share; each may be left out, or None.

    `data` is labelled data, `calibration` data to find ranges on (else a part of `data`), `train` data to train on, of
    which no sample may be in `data`. `prune` (`30%`) is the share of a torch module's FLOPs that is to go before it is
    exported, `force` makes masks that the target gains nothing from. `distill` lets what is left learn to answer as the
    original; `student` (`file.py:function`) makes a smaller module that does. `numerics` is a promise: without it the
    fastest model inside the limit is taken. `max_drop` is `1%` (relative), `0.8pt` (absolute), `10% errors` or `none`;
    labelled data implies 1%. `output` is what the metric reads. Texts need a `tokenizer`
    (a folder), images a `preprocess` (a preset, a file of options, or `file.py:function`); `columns` says what a
    table holds where (`text=review,label=stars`), `postprocess` (`file.py:function`) what answers become,
    `labels` the names of the classes in the order of their numbers (`no,yes`, or a file with one a line), `max_length`
    where texts are cut, `skip_bad` how many unusable samples may be left out. `ranges` is the report of an earlier
    quantize stage, in place of calibration. `auto` also makes milder forms, layer by layer, of what is faster and
    misses the limit; a promise does so where nothing keeps it. After `time_limit` (`20m`) the best so far is taken.
    `backend` names the one that will serve (`all`: also files of torch's own, which take minutes more to make).
    `smallest` takes the smallest of all inside the limit in place of the fastest.
    `factory` makes a state
    dict's module; `inputs` are specs as in `image=float32:batch,3,224,224`. `settings` are `stage.option=value`.
    """

    data: str | Path | None
    calibration: str | Path | None
    train: str | Path | None
    distill: bool
    student: str | None
    numerics: Numerics | None
    prune: str | None
    force: bool
    target: str | None
    metric: str | None
    output: str | None
    tokenizer: str | Path | None
    columns: str | None
    preprocess: str | Path | None
    postprocess: str | None
    labels: str | Path | None
    max_length: int | None
    skip_bad: int | None
    max_drop: str | None
    factory: str | None
    inputs: Sequence[str]
    static_batch: bool
    allow_pickle: bool
    calibration_method: str | None
    ranges: str | Path | None
    auto: bool
    smallest: bool
    time_limit: str | None
    backend: str | None
    threads: int | None
    seed: int
    name: str | None
    settings: Sequence[str]


# What stages do, which a recipe says itself.
_OF_STEPS = ("numerics", "backend", "calibration_method", "ranges", "prune", "force", "distill", "student")
_A_FUNCTION = "write it to a file and name it: file.py:function"
_AS_FILES = {
    "data": "numpy.savez('data.npz', NAME_OF_INPUT=…, labels=…), then data='data.npz'",
    "calibration": "numpy.savez('calibration.npz', NAME_OF_INPUT=…), then calibration='calibration.npz'",
    "train": "numpy.savez('train.npz', NAME_OF_INPUT=…, labels=…), then train='train.npz'",
    "metric": _A_FUNCTION,
    "student": _A_FUNCTION,
    "factory": _A_FUNCTION,
}
_MODEL_AS_FILE = (
    "torch.export.save(torch.export.export(model.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2'), then 'model.pt2'; "
    "or name the function that makes it: file.py:function"
)


def refuse_objects(**given: object) -> None:
    """What is handed in is named, not handed over: stages run in processes that have nothing of this one.

    Raises:
        UsageError: something is neither a text nor a path; the hint says how to write it to a file.
    """
    for word, value in given.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise UsageError(
                f"{word} is a {type(value).__name__} in memory; mlpack takes a file, or a function by its name",
                _AS_FILES.get(word, _MODEL_AS_FILE),
            )


def recipe_for(known: Settings, model: str | Path | None, wanted: Wanted) -> Recipe:
    """The recipe of these wishes, or the recipe file with them over it; settings stand in for what is missing.

    Raises:
        RecipeError, UsageError: it does not hold together, no model is named, or a keyword is unknown.
    """
    for word in wanted:
        if word not in Wanted.__annotations__:
            raise unknown("keyword", word, tuple(Wanted.__annotations__))
    refuse_objects(model=model, **{word: wanted.get(word) for word in _AS_FILES})
    given = str(model) if model is not None else known.model
    if given is None:
        raise UsageError("which model?", "mlpack optimize model.pt2 --data data.npz")
    recipe = _over_file if Path(given).suffix in {".yaml", ".yml"} else _from_scratch
    made = timed(spanned(with_set(recipe(known, given, wanted), wanted.get("settings") or ())))
    if wanted.get("train"):
        check_trains(made)
    return made


def _over_file(known: Settings, file: str, wanted: Wanted) -> Recipe:
    if any(wanted.get(word) for word in _OF_STEPS):
        raise UsageError(
            "a recipe says what its stages do: numerics, backend, calibration, pruning and training are its own",
            "change the recipe, or set one option: --set quantize.numerics=int8",
        )
    source = ("factory", "inputs", "static_batch", "allow_pickle")
    flags = {
        "source": {word: wanted.get(word) for word in source},
        "data": _data(wanted).model_dump(),
        "limit": wanted.get("max_drop"),
        **{word: wanted.get(word) or None for word in ("auto", "smallest")},
        **{word: wanted.get(word) for word in ("target", "threads", "seed", "name", "time_limit")},
    }
    usual = {
        "data": _data({}, known).model_dump(),
        **{word: getattr(known, word) for word in ("target", "limit", "threads", "name")},
    }
    return read_recipe(Path(file), flags, usual)


def _from_scratch(known: Settings, model: str, wanted: Wanted) -> Recipe:
    source = SourceSpec(
        model=model,
        factory=wanted.get("factory") or known.factory,
        inputs=tuple(wanted.get("inputs") or ()),
        static_batch=bool(wanted.get("static_batch")),
        allow_pickle=bool(wanted.get("allow_pickle")),
    )
    return recipe_of(
        source,
        _data(wanted, known),
        numerics=wanted.get("numerics"),
        prune=wanted.get("prune"),
        force=bool(wanted.get("force")),
        target=wanted.get("target") or known.target or "cpu",
        limit=wanted.get("max_drop") or known.limit,
        calibration_method=wanted.get("calibration_method"),
        ranges=_text(wanted.get("ranges")),
        auto=bool(wanted.get("auto")),
        smallest=bool(wanted.get("smallest")),
        time_limit=wanted.get("time_limit"),
        backend=wanted.get("backend"),
        distill=bool(wanted.get("distill")),
        student=wanted.get("student"),
        threads=wanted.get("threads") or known.threads,
        seed=wanted.get("seed") or 0,
        name=wanted.get("name") or known.name,
    )


def _data(wanted: Wanted, known: Settings | None = None) -> DataSpec:
    """What the flags say of data; with settings, those stand in for what they leave out."""
    return DataSpec(
        evaluation=_text(wanted.get("data")) or (known and known.data),
        calibration=_text(wanted.get("calibration")),
        train=_text(wanted.get("train")) or (known and known.train),
        metric=wanted.get("metric") or (known and known.metric),
        output=wanted.get("output"),
        tokenizer=_text(wanted.get("tokenizer")) or (known and known.tokenizer),
        columns=wanted.get("columns") or (known and known.columns),
        preprocess=_text(wanted.get("preprocess")) or (known and known.preprocess),
        postprocess=wanted.get("postprocess"),
        labels=_text(wanted.get("labels")),
        max_length=wanted.get("max_length"),
        skip_bad=wanted.get("skip_bad") or None,
    )


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
