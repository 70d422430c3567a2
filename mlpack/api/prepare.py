"""What every run starts with: data opened and split, the source loaded, and the context that stages share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlpack.core.installation import torch_cuda
from mlpack.core.targets import load_target
from mlpack.engine.context import Context
from mlpack.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.api.pipeline_draft import Draft
    from mlpack.core.dataset import DataRef, Part, RawOptions
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.core.reporter import Reporter
    from mlpack.core.target import Target
    from mlpack.datasets.rows import RowDataset
    from mlpack.datasets.split import Split
    from mlpack.engine.cache import Done
    from mlpack.stages.load import Load

SYNTHETIC = "random:64"


@dataclass(frozen=True)
class Prepared:
    """The loaded original, the context of the run, what the data is, and what comes before and after the model."""

    source: Done
    context: Context
    synthetic: bool
    pipeline: Draft | None = None

    @property
    def baseline(self) -> Model:
        """The original, as the user would run it."""
        return self.source.model


@dataclass(frozen=True)
class Opened:
    """The data, the context, and the stage that would load the source: nothing has run yet."""

    stage: Load
    context: Context
    data: RowDataset | None
    pipeline: Draft | None
    train: RowDataset | None = None


def prepare(recipe: Recipe, cache: Path, reporter: Reporter, *, fresh: bool = False) -> Prepared:
    """Open and split the data, load the source, check that both fit.

    Without data, seeded synthetic rows stand in: enough to see that graphs answer alike, never a judgement.

    Raises:
        ModelError: the source cannot be used.
        DataError: the data cannot be used or does not fit.
    """
    from mlpack.engine.run import run

    opened = open_recipe(recipe, cache, reporter, fresh=fresh)
    source = run(opened.stage, None, opened.context, label=f"load {recipe.source.model}")
    for note in source.report.metrics.get("notes", ()):
        reporter.warn(f"{recipe.source.model}: {note}")
    return with_source(opened, recipe, source)


def open_recipe(recipe: Recipe, cache: Path, reporter: Reporter, *, fresh: bool = False) -> Opened:
    """Open and split the data and recognise the source; runs no stage.

    Raises:
        ModelError: the source cannot be used.
        DataError: the data cannot be used.
    """
    from mlpack.api.preprocessing import draft_of, raw_options
    from mlpack.core.threads import usable_threads
    from mlpack.datasets import open_data
    from mlpack.stages.load import Load

    context = Context(
        cache=cache,
        target=load_target(recipe.target),
        threads=recipe.threads or usable_threads(),
        seed=recipe.seed,
        reporter=reporter,
        fresh=fresh,
    )
    given = recipe.data.evaluation
    draft = draft_of(recipe)
    raw = raw_options(draft, recipe.data, cache)
    data = None
    if given is not None and not given.startswith("random:"):
        reporter.say(f"reading {given}")
        data = open_data(given, raw=raw, say=reporter.say)
        for note in getattr(data, "notes", ()):
            reporter.warn(note)
    stage = Load.of(recipe.source, data.inputs if data is not None else ())
    train = _training_data(recipe, raw, reporter)
    if data is not None:
        context = _with_data(context, given or "", data, recipe, raw, train)
    return Opened(stage, context, data, draft, train)


def with_source(opened: Opened, recipe: Recipe, source: Done) -> Prepared:
    """What `prepare` gives, once the source is loaded.

    Raises:
        DataError: the data does not fit the model.
        UsageError: the model's opset is newer than what the target's runtime reads.
    """
    from mlpack.api.floor import check_opset
    from mlpack.api.pipeline_draft import finished
    from mlpack.datasets import check_fits

    context, data, given = opened.context, opened.data, recipe.data.evaluation
    source = source.model_copy(update={"model": as_run_today(source.model, context.target, torch_cuda())})
    check_opset(source.model, context.target)
    if data is not None:
        check_fits(data, source.model.inputs)
        if opened.train is not None:
            check_fits(opened.train, source.model.inputs)
    elif recipe.data.calibration is not None and not recipe.data.calibration.startswith("random:"):
        raise DataError("--calibration without --data: nothing to judge by", "give labelled data: --data FILE")
    else:
        context = with_synthetic(context, given or recipe.data.calibration or SYNTHETIC, source.model)
    draft = None if opened.pipeline is None else finished(opened.pipeline, source.model)
    return Prepared(source, replace(context, baseline=source.model), synthetic=data is None, pipeline=draft)


def as_run_today(model: Model, target: Target, cuda: str | None) -> Model:
    """The original on the device that its user runs it on: the target's card where that is here and torch is for it.

    `cuda` is the version of CUDA that torch is built for; None: for CPUs alone.
    """
    if model.format != "torch" or target.kind != "cuda" or not target.here or cuda is None:
        return model
    return model.model_copy(update={"backend_options": model.backend_options.model_copy(update={"device": "cuda"})})


def _training_data(recipe: Recipe, raw: RawOptions | None, reporter: Reporter) -> RowDataset | None:
    """What is trained on, where a step trains; or looks at it, where there is some.

    Raises:
        DataError: there is none, or nothing to judge the result by.
    """
    from mlpack.datasets import open_data
    from mlpack.engine.validate import options_of

    steps = [options_of(step) for steps in (recipe.steps, *recipe.beside) for step in steps]
    trains = next((stage.name for stage in steps if stage.trains()), None)
    path = recipe.data.train
    if trains is None and (path is None or not any("train" in stage.reads() for stage in steps)):
        return None
    if trains is None and path is not None and path.startswith("random:"):
        raise DataError(
            f"train: {path}: random rows have no labels that could tell what the model needs",
            "leave train out, or give training data: --train FILE.npz",
        )
    if path is None or path.startswith("random:"):
        raise DataError(f"{trains} has nothing to learn from", "give training data: --train FILE.npz")
    if recipe.data.evaluation is None:
        raise DataError("--train without --data: nothing to judge by", "give labelled data: --data FILE")
    reporter.say(f"reading {path}")
    train = open_data(path, raw=raw, say=reporter.say)
    for note in getattr(train, "notes", ()):
        reporter.warn(f"{path}: {note}")
    return train


def _with_data(
    context: Context,
    path: str,
    data: RowDataset,
    recipe: Recipe,
    raw: RawOptions | None,
    train: RowDataset | None,
) -> Context:
    from mlpack.datasets import open_data
    from mlpack.datasets.ref import make_ref
    from mlpack.datasets.split import Split, split

    own = recipe.data.calibration
    if own is not None and own.startswith("random:"):
        raise DataError(
            f"--calibration {own} with --data: random rows would spoil the ranges that real rows give",
            "leave --calibration out: a seeded part of --data is then set aside for it",
        )
    calibration = open_data(own, raw=raw, say=context.reporter.say) if own is not None else None
    name = f"{data.fingerprint} {recipe.seed} {calibration.fingerprint if calibration else ''}"
    place = context.cache / "splits" / f"{hashlib.sha256(name.encode()).hexdigest()}.npz"
    if not place.exists():
        context.reporter.say("splitting the data by content")
        split(data, recipe.seed, calibration).save(place)
    ref = make_ref(path, data, place, own if calibration else None, calibration, raw, recipe.data.train, train)
    parts = Split.load(place)
    if train is not None:
        _refuse_trained(path, data, recipe.data.train or "", train, context)
    for note in parts.notes:
        context.reporter.warn(note)
    prints = part_fingerprints(ref, calibration, parts)
    if train is not None:
        prints["train"] = train.fingerprint
    return replace(context, data=ref, parts=prints)


def _refuse_trained(path: str, data: RowDataset, train_path: str, train: RowDataset, context: Context) -> None:
    """No row is trained on that is calibrated, chosen or confirmed on; it is looked for once."""
    from mlpack.datasets.overlap import refuse_other_kind, refuse_trained

    refuse_other_kind(path, train_path)
    context.reporter.say("comparing training and evaluation data by content")
    name = hashlib.sha256(f"{data.fingerprint} {train.fingerprint}".encode()).hexdigest()
    refuse_trained(data, train, context.cache / "splits" / f"{name}.apart")


def with_synthetic(context: Context, path: str, model: Model) -> Context:
    """The context with seeded rows of the model's inputs in place of data."""
    from mlpack.datasets import open_data
    from mlpack.datasets.ref import make_ref

    data = open_data(path, model.inputs)
    ref = make_ref(path, data)
    parts: dict[Part, str] = dict.fromkeys(("calibration", "choosing", "confirming"), data.fingerprint)
    return replace(context, data=ref, parts=parts)


def part_fingerprints(ref: DataRef, calibration: RowDataset | None, rows: Split) -> dict[Part, str]:
    """A part is known by the data it is of and by its rows, so that a longer file keeps nothing by mistake."""
    from mlpack.core.dataset import PARTS

    prints: dict[Part, str] = {}
    for part in PARTS:
        whole = ref.fingerprint
        if part == "calibration" and calibration is not None:
            whole = calibration.fingerprint
        prints[part] = hashlib.sha256(whole.encode() + rows.rows(part).tobytes()).hexdigest()
    return prints
