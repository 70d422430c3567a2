"""`mlpack.build()`: an artifact that was made elsewhere, finished on the machine that it is for, as a new version."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlpack.api.lookup import artifact, store_folder
from mlpack.api.optimize import Optimized, concluded, parsed, settled
from mlpack.core.artifact import ParentRecord
from mlpack.core.backend_options import BackendOptions
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.recipe import Step
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.core.target import Target
from mlpack.errors import MissingHardware, MissingLibrary, UsageError, unknown

if TYPE_CHECKING:
    from mlpack.api.prepare import Prepared
    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.recipe import Recipe
    from mlpack.engine.judge import Found
    from mlpack.measure.limits import Limit

Builder = Literal["auto", "tensorrt", "tensorrt_rtx"]


@progress_in_notebooks
def build(
    reference: str | None = None,
    *,
    model: str | Path | None = None,
    factory: str | None = None,
    data: str | Path | None = None,
    target: str | Path | None = None,
    backend: str | None = None,
    library: Builder | None = None,
    max_drop: str | None = None,
    threads: int | None = None,
    build_host: str | None = None,
    build_command: str = "mlpack",
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Optimized:
    """Finish an artifact on the machine that it is for: compile its graph, score it, time it, publish a new version.

    Its target has to be here, or the one that `target` names (`cpu` is this machine). The graph is compiled for each
    backend that serves here, for an NVIDIA target by TensorRT (`library` says by which of the two) unless `backend`
    names another; the fastest inside the limit wins. The rows that confirmed the artifact judge it again, or those of
    other `data`; it is timed beside the original, which `model` and `factory` name where that has moved. `max_drop` is
    as for `optimize` (default: the artifact's own limit).

    `build_host` (`user@host`) is the machine that it is for, where ssh needs no password and `build_command` starts
    mlpack: the artifact, the original and the data are sent there, and what is built there comes back into this store.

    Raises:
        UsageError: no such artifact, one without a graph, or a graph by other rules than the target's.
        MissingHardware, MissingLibrary: its target is not here, or nothing that builds for it.
        MachineError: the other machine cannot be reached.
        ModelError, DataError: the original or the data is not here, or is another one.
        Tampered: a file of the artifact is not the one that was published.
        StageFailed: a library refuses the graph.
        GateFailed: the limit is missed here, or the original is faster; nothing is published.
    """
    from mlpack.api.build_inputs import prepared_for, recipe_of
    from mlpack.store.publish import check_store
    from mlpack.store.read import lies_in_store
    from mlpack.store.verify import verify

    known = load_settings(Path.cwd())
    stored = artifact(reference, store)
    verify(stored.path)
    place = stored.path.parent.parent if store is None and lies_in_store(stored) else store_folder(store)
    named = None if target is None else str(target)
    read_recipe = partial(
        recipe_of,
        stored.artifact,
        model=None if model is None else str(model),
        factory=factory,
        data=None if data is None else str(data),
        target=named,
        limit=max_drop,
        threads=threads,
    )
    if build_host is not None:
        from mlpack.api.build_host import build_there
        from mlpack.core.ssh import Host

        flags = {"target": named, "backend": backend, "library": library, "max-drop": max_drop, "threads": threads}
        host = Host(build_host)
        made = build_there(host, build_command, stored, read_recipe(), flags, place, reporter or Silent())
        return Optimized(made or stored, unchanged=made is None)
    aim = _aim(stored.artifact, named)
    asked = (model, factory, data, target, backend, library, max_drop, threads)
    if _finished_here(stored.artifact) and not any(asked):
        return Optimized(stored, unchanged=True)
    steps = _steps(stored.artifact, aim, backend, library)
    check_store(place)
    recipe = read_recipe()
    limit = parsed(recipe.limit)
    prepared = prepared_for(stored, recipe, aim, known.cache, reporter or Silent(), other_data=data is not None)
    recipe, limit = settled(recipe, limit, prepared)
    tried = recipe.model_copy(update={"steps": steps})
    found = _search(stored, tried, None if prepared.synthetic else limit, prepared)
    whole = recipe.model_copy(update={"steps": (*recipe.steps, *steps)})
    return concluded(place, _draft(stored.artifact, whole, prepared, found), whole, prepared, found, stored)


def _search(stored: Stored, recipe: Recipe, limit: Limit | None, prepared: Prepared) -> Found:
    """The best that the steps can make of the artifact's graph here."""
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.search import search
    from mlpack.engine.workers import Here

    graph = stored.model.model_copy(update={"backend": None, "backend_options": BackendOptions()})
    with Here() as workers:
        return search(recipe, limit, prepared.context, Deadline(None), workers, start=graph)


def _draft(parent: Artifact, recipe: Recipe, prepared: Prepared, found: Found) -> Artifact:
    """The new artifact: the stages of the one it was built from, then its own."""
    from mlpack.api.publishing import artifact_of
    from mlpack.api.records import lineage_of

    record = ParentRecord(name=parent.name, version=parent.version, digest=parent.digest)
    lineage = (*parent.lineage, *lineage_of(found.winner.steps))
    draft = artifact_of(parent.name, recipe, prepared, found)
    return draft.model_copy(update={"parent": record, "lineage": lineage})


def _aim(this: Artifact, named: str | None) -> Target:
    """The target to build for.

    Raises:
        MissingHardware: it is not here.
        UsageError: the graph follows the rules of other hardware.
    """
    from mlpack.core.machine import cpu_name, nvidia_devices
    from mlpack.core.targets import is_here, load_target, this_machine

    label = f"{this.name}@{this.version}"
    aim = Target.model_validate(this.target) if named is None else load_target(named)
    if not is_here(aim) and (named is None or not aim.here):
        has = ", ".join((cpu_name(), *(device.name for device in nvidia_devices())))
        here = f"mlpack build {label} --target cpu" if _follows(this, this_machine()) else None
        there = f"take it there: mlpack save {label} {this.name}.tar, then mlpack load and mlpack build"
        raise MissingHardware(
            f"{label} is to be built on {_wanted(aim)}, and this machine has {has}",
            f"{there}; or for this CPU: {here}" if here else there,
        )
    if not _follows(this, aim):
        assert this.model.quantization is not None
        raise UsageError(
            f"{label} is quantized by the rules {this.model.quantization.rules}, and {aim.title} wants {aim.rules}",
            f"make one for it: mlpack optimize {this.source.path} --target {aim.name}",
        )
    return aim.model_copy(update={"here": True})


def _wanted(aim: Target) -> str:
    if aim.kind == "cuda":
        return f"{aim.title} (compute capability {aim.compute_capability})"
    return f"{aim.title} ({', '.join(aim.isa)})"


def _follows(this: Artifact, aim: Target) -> bool:
    """Whether the graph is one for this target: floats are for all of them."""
    made = this.model.quantization
    return made is None or made.method == "cast" or made.rules == aim.rules


def _finished_here(this: Artifact) -> bool:
    """Whether its latency was measured on this very machine."""
    from mlpack.api.records import environment

    measured = any(record.optimized is not None for record in this.latency)
    now = environment()
    return measured and all(this.environment.get(part) == now[part] for part in ("cpu", "gpu"))


def _steps(this: Artifact, aim: Target, backend: str | None, library: Builder | None) -> tuple[Step, ...]:
    """The steps from the graph on: TensorRT builds for a card, the backends that serve here compete on a CPU.

    Raises:
        UsageError: there is no graph to begin with, or a builder is named where none is used.
        MissingLibrary: no engine can be built or run with what is installed.
    """
    from mlpack.backends import runs

    if this.model.format != "onnx":
        again = f"mlpack optimize {this.source.path}"
        raise UsageError(
            f"{this.name}@{this.version} holds no graph: its {this.model.format} file runs where it was compiled",
            f"mlpack build {this.parent.name}@{this.parent.version}" if this.parent else again,
        )
    able = (*runs("onnx"), *(runs("tensorrt") if aim.kind == "cuda" else ()))
    if backend is not None and backend not in able:
        raise unknown("backend", backend, able)
    by_tensorrt = aim.kind == "cuda" and backend in {None, *runs("tensorrt")}
    if library is not None and not by_tensorrt:
        raise UsageError("--library names what builds a TensorRT engine, and none is built here", "leave it out")
    if by_tensorrt:
        _refuse_without_builder(aim, library or "auto")
        engine = Step(stage="build_engine", options={"library": library or "auto"})
        return (engine, Step(stage="compile", options={"backend": runs("tensorrt")[0]}))
    options = {} if backend is None else {"backend": backend}
    return (Step(stage="compile", options={**options, "device": "cuda"} if aim.kind == "cuda" else options),)


def _refuse_without_builder(aim: Target, library: Builder) -> None:
    """What builds and what runs an engine is asked for before anything is scored.

    Raises:
        MissingLibrary: one of the two is not installed.
    """
    from mlpack.core.installation import torch_cuda
    from mlpack.stages.build_engine import BuildEngine

    BuildEngine(library=library).builder(aim)
    if torch_cuda() is None:
        raise MissingLibrary(
            "an engine's buffers on the card are torch's, and this torch is a CPU build",
            "install a torch that is built for CUDA, or: --backend onnxruntime, with onnxruntime-gpu",
        )
