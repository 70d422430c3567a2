"""`mlpack.optimize()`: from a trained model and labelled data to a published artifact with a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mlpack.api.flags import AGREEMENT_LIMIT, DEFAULT_LIMIT, NO_LIMIT
from mlpack.api.pruning import told_of_pruning
from mlpack.api.wanted import recipe_for
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.core.summary import Told
from mlpack.engine.screening import pace
from mlpack.errors import DataError, GateFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlpack.api.prepare import Prepared
    from mlpack.api.wanted import Wanted
    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.recipe import Recipe
    from mlpack.core.summary import Part
    from mlpack.engine.cache import Done
    from mlpack.engine.judge import Found
    from mlpack.engine.workers import Workers
    from mlpack.measure.limits import Limit

_SUFFIXES = {".pt", ".pth", ".pt2", ".onnx", ".safetensors", ".yaml", ".yml", ".py"}
# Two launches tell a contender that takes less than this share of the other's time.
_CLEARLY = 0.75
_SHORT = {"batches": (1,), "launches": 1, "seconds": 0.2, "components": False}


@dataclass(frozen=True)
class Optimized(Told):
    """What `optimize` or `build` did. `unchanged`: all was there already, and nothing new was published."""

    stored: Stored
    unchanged: bool
    recheck: Done | None = None

    def summary(self) -> Iterator[Part]:
        """The verdict and what it rests on."""
        from mlpack.reports.closing import closing, recheck_line

        this = self.stored.artifact
        if self.unchanged:
            yield f"unchanged: still {this.name}@{this.version}"
        if self.recheck is not None:
            yield recheck_line(self.recheck.report.tables["latency"], this)
        yield ""
        yield from closing(self.stored)


@progress_in_notebooks
def optimize(
    model: str | Path | None = None,
    *,
    store: str | Path | None = None,
    fresh: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    reporter: Reporter | None = None,
    **wanted: Unpack[Wanted],
) -> Optimized:
    """Make a model smaller and faster, prove how accurate it still is, and publish it.

    `model` is a model file, `package.module:function`, or a recipe (`.yaml`). The other keywords are those of
    `mlpack.api.wanted.Wanted`: `data`, `numerics`, `max_drop`, `target` and so on, named as the flags are.
    `workers` is how many candidates are made and scored at once (default: as many as the threads of each leave CPUs
    for), `ray` the address of a cluster that does it instead; what is timed is timed here, alone.

    Raises:
        UsageError, ModelError, DataError: what was handed in cannot be used.
        StageFailed: a library refuses the model.
        GateFailed: the limit or the promise cannot be held; nothing is published.
    """
    known = load_settings(Path.cwd())
    recipe = recipe_for(known, model, wanted)
    place = Path(store).absolute() if store else known.store
    team = partial(_workers, recipe, known.cache, workers, ray)
    return run_recipe(recipe, place, known.cache, reporter or Silent(), fresh=fresh, team=team)


def run_recipe(
    recipe: Recipe, store: Path, cache: Path, reporter: Reporter, *, fresh: bool, team: Callable[[], Workers]
) -> Optimized:
    """Run a recipe to its end: search, confirm, time, publish."""
    from mlpack.api.floor import check_memory
    from mlpack.api.prepare import prepare
    from mlpack.api.publishing import artifact_of
    from mlpack.core.targets import load_target
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.search import search
    from mlpack.engine.validate import check
    from mlpack.store.names import check_name
    from mlpack.store.publish import check_store

    deadline = Deadline(recipe.time_limit)
    limit = parsed(recipe.limit)
    check(_with_metric(recipe, recipe.data.metric or "top1"), load_target(recipe.target))
    name = check_name(recipe.name or name_for(recipe.source.model))
    check_store(store)
    # A cluster that does not answer is told before the work begins.
    with team() as workers:
        prepared = prepare(recipe, cache, reporter, fresh=fresh)
        recipe, limit = settled(recipe, limit, prepared)
        check_memory(recipe, prepared.baseline, prepared.context)
        try:
            found = search(recipe, None if prepared.synthetic else limit, prepared.context, deadline, workers)
        except GateFailed as error:
            raise told_of_pruning(error, recipe) from error
    return concluded(store, artifact_of(name, recipe, prepared, found), recipe, prepared, found)


def concluded(
    store: Path, draft: Artifact, recipe: Recipe, prepared: Prepared, found: Found, parent: Stored | None = None
) -> Optimized:
    """What follows a search: nothing where its winner fails; else it is timed once more, and published where it is new.

    `parent` is the artifact whose graph it was built from, where the original is not what the search began with.

    Raises:
        GateFailed: the limit is missed, or the winner is slower than what it has to beat.
    """
    from mlpack.api.publishing import publish_found
    from mlpack.store.publish import same_as_latest

    _refuse_failed(found, prepared.context.cache, recipe)
    here = prepared.context.target.here
    earlier = same_as_latest(store, draft)
    if earlier is not None:
        timed = final_timing(recipe, prepared, found, _SHORT) if here else None
        return Optimized(earlier, unchanged=True, recheck=timed)
    timed = final_timing(recipe, prepared, found, {}) if here else None
    _refuse_slower(found, timed, recipe)
    return Optimized(publish_found(store, draft, prepared, found, timed, recipe, parent), unchanged=False)


def _workers(recipe: Recipe, cache: Path, count: int | None, ray: str | None) -> Workers:
    """Those asked for.

    Raises:
        UsageError: workers here and of a cluster.
    """
    from mlpack.core.threads import usable_threads
    from mlpack.engine.workers import Here

    cpus = usable_threads()
    threads = recipe.threads or cpus
    if ray is None:
        return Here(count or max(1, cpus // threads))
    if count is not None:
        raise UsageError("--workers are those of this machine, and --ray asks a cluster", "give one of them")
    from mlpack.engine.cluster import Cluster

    return Cluster(ray, threads, cache)


def settled(recipe: Recipe, limit: Limit | None, prepared: Prepared) -> tuple[Recipe, Limit | None]:
    """The recipe with its metric chosen, and the limit that follows from the data where none was given."""
    from mlpack.measure.limits import Limit as Parsed
    from mlpack.measure.metrics import choose_metric_name
    from mlpack.measure.user_metric import is_reference, user_code_digest

    data = prepared.context.data
    assert data is not None
    name = recipe.data.metric
    if name is None and data.labelled:
        name = choose_metric_name(prepared.baseline.outputs, _labels(prepared))
    name = name or "agreement"
    if recipe.limit is None and not prepared.synthetic:
        text = AGREEMENT_LIMIT if name == "agreement" else DEFAULT_LIMIT
        limit = Parsed.parse(text)
        recipe = recipe.model_copy(update={"limit": text})
    digest = user_code_digest(name) if is_reference(name) else None
    return _with_metric(recipe, name, digest), limit


def _labels(prepared: Prepared) -> Any:
    from mlpack.datasets.ref import open_part

    assert prepared.context.data is not None
    batch = next(iter(open_part(prepared.context.data, "choosing", prepared.baseline.inputs).batches(256)))
    if batch.labels is None:
        raise DataError("the data has labels in some batches and none in others", "give every batch its labels")
    return batch.labels


def _with_metric(recipe: Recipe, name: str, digest: str | None = None) -> Recipe:
    options = {**recipe.accuracy.options, "metric": name, "output": recipe.data.output, "metric_sha256": digest}
    return recipe.model_copy(update={"accuracy": recipe.accuracy.model_copy(update={"options": options})})


def parsed(text: str | None) -> Limit | None:
    """The limit that a recipe has; None: none was given, or none is wanted."""
    from mlpack.measure.limits import Limit as Parsed

    return None if text in {None, NO_LIMIT} else Parsed.parse(text or "")


def final_timing(recipe: Recipe, prepared: Prepared, found: Found, shorter: dict[str, Any]) -> Done:
    """The A/B of the winner with the original and, for a promise, with its parent.

    An original whose weights are read in every call is not timed: it would be the disk's time.
    """
    from mlpack.engine.run import run
    from mlpack.engine.validate import options_of

    step = recipe.latency.model_copy(update={"options": {**recipe.latency.options, **shorter}})
    rivals = {} if prepared.baseline.on_disk else {"baseline": prepared.baseline}
    if found.parent is not None and found.parent is not found.winner and not shorter and _in_doubt(found):
        rivals["parent"] = found.parent.model
    label = "timing the winner and the original in turns"
    return run(options_of(step), found.winner.model, prepared.context, rivals=rivals, label=label)


def _in_doubt(found: Found) -> bool:
    """Whether the screening left it open which of winner and parent is faster."""
    assert found.parent is not None
    return pace(found.winner) > _CLEARLY * pace(found.parent)


def _refuse_failed(found: Found, cache: Path, recipe: Recipe) -> None:
    from mlpack.measure.limits import points, smallest_limit

    comparison = found.comparison
    if comparison.verdict != "fail":
        return
    low, high = (points(end, comparison) for end in comparison.drop_ci90)
    failed = GateFailed(
        f"{found.winner.label} drops {points(comparison.drop, comparison)} [{low}, {high}] on {comparison.samples:,} "
        f"samples; allowed: {comparison.limit_text}. Nothing was published; the work is kept in {cache}",
        f"this limit would pass, without redoing anything: --max-drop {smallest_limit(comparison)}",
    )
    raise told_of_pruning(failed, recipe)


def _refuse_slower(found: Found, timed: Done | None, recipe: Recipe) -> None:
    """A promise that is slower than what it was made from is not kept; nor is a winner slower than the original."""
    if timed is None:
        return
    rows = [row for row in timed.report.tables["latency"] if row["contender"] in {"parent", "baseline"}]
    for whose in ("parent", "baseline"):
        ends = [row["speedup_over_ci95"][1] for row in rows if row["contender"] == whose and row["speedup_over_ci95"]]
        if not ends or max(ends) >= 1:
            continue
        if whose == "parent" and recipe.promise is not None and found.parent is not None:
            raise GateFailed(
                f"{found.winner.label} is slower than {found.parent.label}, at every batch size",
                f"leave --{recipe.promise} out and mlpack takes {found.parent.label}",
            )
        if whose == "baseline":
            raise GateFailed(
                f"{found.winner.label} is slower than the original as it runs today, at every batch size",
                "keep the original, or try another --backend or --threads",
            )


def name_for(model: str) -> str:
    """The artifact's name where nobody gave one: the file's, its folder's for `model.*`, or the function's."""
    import re

    place, _, function = model.rpartition(":")
    path = Path(place) if function.isidentifier() and place else Path(model)
    stem = path.stem if path.suffix in _SUFFIXES else path.name
    if stem in {"model", "weights", "checkpoint", "pytorch_model"} and path.absolute().parent.name:
        stem = path.absolute().parent.name
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "model"
