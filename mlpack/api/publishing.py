"""Lays what a run found out as an artifact folder and hands it to the store."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import mlpack
from mlpack.api.engine_script import engine_script
from mlpack.api.floor import counted_of
from mlpack.api.pipeline_draft import golden_answers, pipeline_record
from mlpack.api.pipeline_timings import pipeline_parts, with_pipeline
from mlpack.api.prediction import prediction_record
from mlpack.api.records import (
    accuracy_of,
    candidates_of,
    components_of,
    environment,
    latency_of,
    lengths_of,
    lineage_of,
    model_of,
    modules_of,
)
from mlpack.api.report import page_of
from mlpack.core.artifact import Artifact, SourceRecord
from mlpack.core.filesystem import refused_by_machine, remove, sweep, temporary_sibling

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.api.prepare import Prepared
    from mlpack.core.artifact import PredictionRecord, Stored
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.core.report import Report
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context
    from mlpack.engine.judge import Found

# Reports on a model itself; a model built from it has its own.
_MEASURED = {"accuracy-baseline", "accuracy-optimized", "comparison", "flips", "latency"}


def artifact_of(name: str, recipe: Recipe, prepared: Prepared, found: Found) -> Artifact:
    """The artifact but for what is measured last: latency, golden inputs, files, version, digest."""
    context = prepared.context
    model = found.winner.model
    facts = prepared.source.report.metrics
    accuracy = accuracy_of(
        found,
        context,
        synthetic=prepared.synthetic,
        simulated=not context.target.here and model.backend_options.graph_optimizations == "off",
    )
    return Artifact(
        schema=1,
        name=name,
        version=0,
        status="candidate" if accuracy.verdict == "inconclusive" else "final",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mlpack_version=mlpack.__version__,
        source=SourceRecord(path=recipe.source.model, sha256=facts["sha256"], kind=facts["kind"]),
        target=context.target.model_dump(mode="json"),
        model=model_of(model),
        pipeline=None if prepared.pipeline is None else pipeline_record(prepared.pipeline, context.cache),
        baseline={
            "size_bytes": facts["size_bytes"],
            "backend": prepared.baseline.backend,
            "numerics": prepared.baseline.numerics,
            "format": prepared.baseline.format,
        },
        lineage=lineage_of((prepared.source, *found.winner.steps)),
        accuracy=accuracy,
        latency=latency_of(None, model, context.target, context.threads),
        candidates=candidates_of(found, smallest=recipe.smallest),
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        environment=environment(),
        files={},
    )


def publish_found(
    store: Path,
    draft: Artifact,
    prepared: Prepared,
    found: Found,
    timed: Done | None,
    recipe: Recipe,
    parent: Stored | None = None,
) -> Stored:
    """Make the golden inputs, put all files together and publish; with a parent, also what its stages reported."""
    from mlpack.engine.run import run
    from mlpack.engine.validate import options_of
    from mlpack.store.publish import publish

    context = prepared.context
    golden = run(options_of(recipe.golden), found.winner.model, context, label="golden inputs and their tolerance")
    pipeline = None if prepared.pipeline is None else prepared.pipeline.write(context.cache)
    parts = {} if pipeline is None else pipeline_parts(pipeline, golden.file("."), context.reporter.say)
    finished = draft.model_copy(
        update={
            "latency": latency_of(timed, found.winner.model, context.target, context.threads),
            "prediction": _predicted(recipe, found.winner.model, context),
            "components": with_pipeline(components_of(timed, "components"), parts),
            "components_before": with_pipeline(components_of(timed, "components_before"), parts),
            "modules": modules_of(timed),
            "lengths": lengths_of(timed),
            "golden": golden.report.metrics,
        }
    )
    sweep(context.cache)
    folder = temporary_sibling(context.cache / "publishing")
    try:
        _fill(folder, finished, context, golden, found, timed, recipe, parent)
        if pipeline is not None:
            _add_pipeline(folder, pipeline)
        return publish(store, folder, finished)
    finally:
        remove(folder)


def _predicted(recipe: Recipe, model: Model, context: Context) -> PredictionRecord | None:
    """For a target that is not here, at the batch sizes that would have been timed."""
    from mlpack.engine.validate import options_of

    if context.target.here:
        return None
    counted = counted_of([model], options_of(recipe.latency), context)
    return None if counted is None else prediction_record(model, counted, context.target, context.threads)


def _fill(
    folder: Path,
    finished: Artifact,
    context: Context,
    golden: Done,
    found: Found,
    timed: Done | None,
    recipe: Recipe,
    parent: Stored | None,
) -> None:
    with refused_by_machine(folder):
        shutil.copytree(found.winner.model.path, folder / "model", copy_function=shutil.copyfile)
        (folder / "golden").mkdir()
        for file in golden.report.files:
            shutil.copyfile(golden.file(file), folder / "golden" / file)
        _write_reports(folder / "reports", found, timed)
        if parent is not None:
            _keep_reports(parent, folder / "reports")
        (folder / "report.html").write_text(page_of(finished, folder / "reports"), encoding="utf-8")
        (folder / "recipe.yaml").write_text(_recipe_text(recipe), encoding="utf-8")
        if not context.target.here and context.target.kind == "cuda":
            (folder / "build-engine.sh").write_text(
                engine_script(found.winner.model, context.target.title), encoding="utf-8"
            )


def _keep_reports(parent: Stored, folder: Path) -> None:
    """What the parent's stages reported, but for what was measured of the parent and is measured anew."""
    for file in sorted((parent.path / "reports").glob("*.json")):
        if file.stem not in _MEASURED and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def _add_pipeline(folder: Path, pipeline: Path) -> None:
    """The pipeline's files, and what it makes of the answers to the golden samples."""
    with refused_by_machine(folder):
        shutil.copytree(pipeline, folder / "pipeline", copy_function=shutil.copyfile)
        answers = golden_answers(pipeline, folder / "golden")
        if answers:
            (folder / "golden" / "answers.jsonl").write_text(answers, encoding="utf-8")


def _write_reports(folder: Path, found: Found, timed: Done | None) -> None:
    folder.mkdir()
    named = {"accuracy-baseline": found.baseline_score, "accuracy-optimized": found.score}
    for label, done in named.items():
        (folder / f"{label}.json").write_text(done.report.model_dump_json(indent=1))
        for file in done.report.files:
            shutil.copyfile(done.file(file), folder / f"{label}-{file}")
    _write_flips(folder / "flips.json", found)
    comparison = found.comparison.model_dump(mode="json")
    (folder / "comparison.json").write_text(json.dumps(comparison, indent=1))
    if timed is not None:
        (folder / "latency.json").write_text(timed.report.model_dump_json(indent=1))
        for file in timed.report.files:
            shutil.copyfile(timed.file(file), folder / f"latency-{file}")
    for done in found.winner.steps:
        (folder / f"{done.stage}.json").write_text(done.report.model_dump_json(indent=1))
    for name, report in _diagnosis(found).items():
        (folder / f"{name}.json").write_text(report.model_dump_json(indent=1))


def _diagnosis(found: Found) -> dict[str, Report]:
    """What a search measured of each layer, of the winner where it is a milder form of something."""
    for each in (found.winner, *found.candidates):
        if "diagnosis" in each.facts:
            return cast("dict[str, Report]", each.facts["diagnosis"])
    return {}


def _write_flips(path: Path, found: Found) -> None:
    """The samples that the two models answer differently, where each answer is right or wrong."""
    from mlpack.core.arrays import load_arrays
    from mlpack.measure.slices import flips

    one, two = (load_arrays(done.file("kept.npz")) for done in (found.baseline_score, found.score))
    if found.comparison.errors_baseline is not None and "kept/score" in one:
        flipped = flips(one["kept/score"], two["kept/score"], one["rows"], one.get("names"))
        path.write_text(json.dumps(flipped), encoding="utf-8")


def _recipe_text(recipe: Recipe) -> str:
    import yaml

    return str(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True))
