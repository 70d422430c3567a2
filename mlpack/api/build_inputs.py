"""What `build` works on: the recipe of an artifact, the rows that it was judged on, its original and its pipeline."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from mlpack.api.lookup import raw_options
from mlpack.api.pipeline_draft import Draft
from mlpack.api.prepare import SYNTHETIC, Prepared, part_fingerprints, with_synthetic
from mlpack.core.recipe import Recipe
from mlpack.core.user_code import is_reference
from mlpack.engine.context import Context
from mlpack.errors import DataError, ModelError, UsageError

if TYPE_CHECKING:
    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.dataset import DataRef
    from mlpack.core.reporter import Reporter
    from mlpack.core.target import Target
    from mlpack.engine.cache import Done


def recipe_of(
    this: Artifact,
    *,
    model: str | None,
    factory: str | None,
    data: str | None,
    target: str | None,
    limit: str | None,
    threads: int | None,
) -> Recipe:
    """The recipe that made the artifact, up to its graph, with what is given in place of what it says.

    Raises:
        UsageError: the artifact does not have one.
    """
    try:
        recipe = Recipe.model_validate(this.recipe)
    except ValidationError as error:
        raise UsageError(
            f"{this.name}@{this.version} does not say how it was made", f"mlpack optimize {this.source.path}"
        ) from error
    source = {"model": model or recipe.source.model, "factory": factory or recipe.source.factory}
    rows = {"evaluation": data or recipe.data.evaluation, "metric": this.accuracy.metric}
    return recipe.model_copy(
        update={
            "source": recipe.source.model_copy(update=source),
            "data": recipe.data.model_copy(update=rows),
            "target": target or recipe.target,
            "steps": tuple(step for step in recipe.steps if step.stage != "compile"),
            "beside": (),
            "limit": limit or recipe.limit,
            "threads": threads or recipe.threads,
            "time_limit": None,
        }
    )


def prepared_for(
    stored: Stored, recipe: Recipe, aim: Target, cache: Path, reporter: Reporter, *, other_data: bool
) -> Prepared:
    """The data, the original and the artifact's own pipeline, as a run of `optimize` has them.

    Raises:
        DataError: the data or the metric's file is not here, or is another one.
        ModelError: the original is not here, or is another one.
    """
    from mlpack.core.threads import usable_threads

    this = stored.artifact
    _check_metric(this)
    threads = recipe.threads or usable_threads()
    context = Context(cache=cache, target=aim, threads=threads, seed=recipe.seed, reporter=reporter)
    synthetic = this.accuracy.verified_on == "synthetic" and not other_data
    if synthetic:
        given = recipe.data.evaluation or recipe.data.calibration or SYNTHETIC
        context = with_synthetic(context, given, stored.model)
    else:
        context = _with_rows(stored, recipe, context, "given" if other_data else "its own")
    source = _original(this, recipe, context, None if synthetic else context.data)
    pipeline = None if this.pipeline is None else Draft.read(stored.path / this.pipeline.path)
    return Prepared(source, replace(context, baseline=source.model), synthetic=synthetic, pipeline=pipeline)


def _with_rows(stored: Stored, recipe: Recipe, context: Context, whose: Literal["its own", "given"]) -> Context:
    """The rows that confirmed the artifact confirm it here, and all others choose; other data is split anew."""
    from mlpack.api.rescoring import confirmed_rows
    from mlpack.datasets import check_fits, open_data
    from mlpack.datasets.ref import make_ref
    from mlpack.datasets.split import Split, split

    this, path = stored.artifact, recipe.data.evaluation
    label = f"{this.name}@{this.version}"
    if path is None or (whose == "its own" and not is_reference(path) and not Path(path).expanduser().exists()):
        raise DataError(
            f"{label} was made with {path}, which is not here", f"say where it lies: mlpack build {label} --data FILE"
        )
    raw = raw_options(stored, skip_bad=recipe.data.skip_bad or 0)
    data = open_data(path, raw=raw, say=context.reporter.say)
    check_fits(data, this.model.inputs)
    confirming = confirmed_rows(stored, data.fingerprint)
    if confirming is None and whose == "its own":
        raise DataError(
            f"{path} is not what {label} was made with: it has changed since",
            f"to judge it by what it is now: mlpack build {label} --data {path}",
        )
    parts = split(data, recipe.seed) if confirming is None else Split.around(confirming, len(data), recipe.seed)
    name = hashlib.sha256(f"{data.fingerprint} {recipe.seed}".encode() + parts.confirming.tobytes()).hexdigest()
    place = context.cache / "splits" / f"{name}.npz"
    parts.save(place)
    for note in parts.notes:
        context.reporter.warn(note)
    ref = make_ref(path, data, place, raw=raw)
    prints = part_fingerprints(ref, None, parts)
    if confirming is not None and this.accuracy.part is not None:
        prints["confirming"] = this.accuracy.part
    return replace(context, data=ref, parts=prints)


def _original(this: Artifact, recipe: Recipe, context: Context, data: DataRef | None) -> Done:
    """The original, loaded: what the artifact is compared with and timed beside."""
    from mlpack.engine.run import run
    from mlpack.stages.load import Load

    path = recipe.source.model
    where = f"say where it lies: mlpack build {this.name}@{this.version} --model FILE"
    try:
        stage = Load.of(recipe.source, () if data is None else data.inputs)
    except ModelError as error:
        raise ModelError(f"the original, to time it beside, cannot be used: {error.message}", where) from error
    if stage.sha256 != this.source.sha256:
        raise ModelError(f"{path} is not what {this.name}@{this.version} was made of", where)
    return run(stage, None, context, label=f"load {path}")


def _check_metric(this: Artifact) -> None:
    """A metric of the user's own has to be the one that the artifact was judged by."""
    from mlpack.measure.user_metric import is_reference as is_function
    from mlpack.measure.user_metric import user_code_digest

    name = this.accuracy.metric
    code = this.recipe.get("accuracy", {}).get("check_accuracy", {}).get("metric_sha256")
    if is_function(name) and user_code_digest(name) != code:
        raise DataError(
            f"{name} is not what {this.name}@{this.version} was judged by: its file has changed since",
            "bring the file that it was judged by",
        )
