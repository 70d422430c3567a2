"""`mlpack.bench()`: artifacts and models timed in turns, with intervals, and where the time goes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.contenders import EVERY, Contender, is_artifact, keyed, of_artifact, of_model
from mlpack.api.floor import floors_here
from mlpack.api.lookup import raw_options
from mlpack.api.shapes import rows_of
from mlpack.api.timings import Benched, against_of, result_of
from mlpack.api.wanted import refuse_objects
from mlpack.core.dataset import PARTS
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.recipe import SourceSpec
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.engine.context import Context
from mlpack.errors import StageFailed, UsageError, unknown
from mlpack.measure.quantities import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.core.dataset import RawOptions
    from mlpack.engine.cache import Done

BATCHES = (1, 8)
LAUNCHES = 5
SECONDS = 0.4
STARTS = 3


@progress_in_notebooks
def bench(
    models: str | Path | Sequence[str | Path] | None = None,
    *,
    backend: str | None = None,
    batches: Sequence[int] | None = None,
    shapes: Sequence[str] = (),
    against: str | None = None,
    threads: int | None = None,
    data: str | Path | None = None,
    inputs: Sequence[str] = (),
    factory: str | None = None,
    allow_pickle: bool = False,
    max_p99: str | None = None,
    launches: int = LAUNCHES,
    seconds: float = SECONDS,
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Benched:
    """Time artifacts and models side by side: each launch a fresh process, in turns, equal rows and threads.

    An artifact whose search found fewer threads faster keeps to those.
    `models` are artifacts (`name@3`, a path) or models (a file, `module:function`); None: the only artifact.
    `backend` is a name or `all`; None: an artifact's own, eager torch for a torch model. Rows are those of
    `data`, else an artifact's golden inputs, else synthetic; `shapes` (`x=8,128`) are synthetic rows of one shape.
    `seconds` is spent on one batch size in one launch. From three batch sizes on each result has a sweep:
    throughput, its knee, and the best batch size whose P99 stays within `max_p99` (`20ms`).

    Raises:
        UsageError, ModelError, DataError: what was handed in cannot be used, or takes other inputs than the rest.
        MissingHardware: an artifact for hardware that is not here.
        StageFailed: a library refuses a model.
    """
    from mlpack.core.arrays import save_arrays
    from mlpack.core.targets import this_machine
    from mlpack.core.threads import usable_threads
    from mlpack.measure.disturbance import notes
    from mlpack.measure.machine import machine_fingerprint

    known = load_settings(Path.cwd())
    p99_ms = None if max_p99 is None else milliseconds(max_p99, "--max-p99")
    _check_backend(backend)
    sizes = _checked(batches, launches, seconds)
    context = Context(
        cache=known.cache,
        target=this_machine(),
        threads=threads or known.threads or usable_threads(),
        seed=0,
        reporter=reporter or Silent(),
    )
    given = None if data is None else str(data)
    if shapes and (given is not None or batches is not None):
        raise UsageError("--shape says the batch and makes its own rows", "leave --data and --batch out")
    spec = SourceSpec(model="", factory=factory or known.factory, inputs=tuple(inputs), allow_pickle=allow_pickle)
    words = _words(models)
    there = {
        word: of_artifact(word, store, backend, context) for word in words if word is None or is_artifact(word, store)
    }
    rivals, _ = of_artifact(against, store, None, context) if against is not None else ([], [])
    artifacts = [*(each for found, _ in there.values() for each in found), *rivals]
    if given is not None and not given.startswith("random:"):
        context = _with_rows(context, given, None, _raw_of(artifacts))
    context = _with_golden(context, given, artifacts)
    made = [there[word] if word in there else of_model(_spec(word, spec), backend, context) for word in words]
    left_out = [reason for _, reasons in made for reason in reasons]
    contenders = keyed([*(each for found, _ in made for each in found), *rivals])
    _check_same_inputs(contenders)
    with tempfile.TemporaryDirectory(prefix="mlpack-") as folder:
        if shapes:
            batch, arrays = rows_of(shapes, contenders[0].model.inputs)
            sizes = (batch,)
            save_arrays(Path(folder) / "rows.npz", arrays)
            context = _with_rows(context, f"{folder}/rows.npz", None)
        elif context.data is None and given is not None:
            context = _with_rows(context, given, contenders[0])
        sizes = _sizes(contenders, sizes, fixed=batches is not None or bool(shapes))
        done = _time(contenders, context, sizes, launches, seconds)
    first, *_ = contenders
    metrics = done.report.metrics
    crashed = {first.key if key == "optimized" else key: times for key, times in metrics["crashed"].items()}
    refused = metrics["refused"]
    if against is not None and contenders[-1].key in refused:
        raise StageFailed(f"{contenders[-1].label}: {refused[contenders[-1].key]}", "compare --against another one")
    left_out += [f"{each.label} on {each.backend}: {refused[each.key]}" for each in contenders if each.key in refused]
    timed = {each.key: each.model for each in contenders if each.key not in refused}
    floors = floors_here(timed, sizes, metrics["shapes"], context)
    results = tuple(
        result_of(
            each,
            done,
            p99_ms,
            first=each is first,
            parts=_around(first, context) if each is first else {},
            floors=floors.get(each.key, {}),
        )
        for each in contenders
        if each.key not in refused
    )
    return Benched(
        threads=context.threads,
        machine=machine_fingerprint(),
        contenders=results,
        against=against_of(results[-1]) if against is not None else (),
        left_out=tuple(left_out),
        rows="synthetic" if shapes or (given or "").startswith("random:") else metrics["rows"],
        launches=metrics["launches"],
        steady=metrics["steady"],
        notes=notes({**metrics, "crashed": crashed}),
        ended=metrics["ended"],
    )


def _words(models: str | Path | Sequence[str | Path] | None) -> list[str | None]:
    several = models if isinstance(models, list | tuple) else [models]
    for each in several:
        refuse_objects(model=each)
    return [None if each is None else str(each) for each in several] or [None]


def _checked(batches: Sequence[int] | None, launches: int, seconds: float) -> tuple[int, ...]:
    sizes = tuple(dict.fromkeys(BATCHES if batches is None else batches))
    if not sizes or min(sizes) < 1:
        raise UsageError(f"batch sizes are whole numbers from 1 on, not {list(sizes)}", "--batch 1,8")
    if launches < 2:  # noqa: PLR2004 - an interval needs two
        raise UsageError(f"{launches} launch has no interval", f"--launches {LAUNCHES}")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{seconds} seconds are no time to measure in", f"--seconds {SECONDS}")
    return sizes


def _check_backend(name: str | None) -> None:
    from mlpack.backends import BACKENDS

    if name is not None and name != EVERY and name not in BACKENDS:
        raise unknown("backend", name, (*BACKENDS.names(), EVERY))


def _spec(word: str | None, spec: SourceSpec) -> SourceSpec:
    """The source of one model; a factory is for weights only, a whole model refuses it."""
    assert word is not None
    needs = word.endswith((".pt", ".pth", ".safetensors"))
    return spec.model_copy(update={"model": word, "factory": spec.factory if needs else None})


def _check_same_inputs(contenders: list[Contender]) -> None:
    """All are timed on the same rows, so all have to take them."""
    first, *others = contenders
    for other in others:
        one, two = _form(first), _form(other)
        if one != two:
            raise UsageError(
                f"{first.label} takes {_inputs(first)} but {other.label} takes {_inputs(other)}: "
                "they cannot be timed on the same rows",
                "time them in runs of their own",
            )


def _form(contender: Contender) -> dict[str, tuple[str, int, tuple[int | None, ...]]]:
    return {
        spec.name: (spec.dtype, len(spec.dims), tuple(dim if isinstance(dim, int) else None for dim in spec.dims[1:]))
        for spec in contender.model.inputs
    }


def _inputs(contender: Contender) -> str:
    return ", ".join(str(spec) for spec in contender.model.inputs)


def _sizes(contenders: list[Contender], wanted: tuple[int, ...], *, fixed: bool) -> tuple[int, ...]:
    """The batch sizes that all can take: a model with a static batch takes one."""
    from mlpack.stages.samples import static_batch

    static = {static_batch(each.model): each.label for each in contenders if not each.model.dynamic_batch}
    if not static:
        return wanted
    size = next(iter(static))
    if len(static) > 1:
        told = ", ".join(f"{label} {batch}" for batch, label in static.items())
        raise UsageError(f"their batches are fixed at different sizes ({told})", "time them in runs of their own")
    if fixed and wanted != (size,):
        raise UsageError(f"{static[size]} has a fixed batch of {size}", f"--batch {size}")
    return (size,)


def _with_golden(context: Context, given: str | None, contenders: list[Contender]) -> Context:
    """Without data, the rows that an artifact came with."""
    golden = next((each.golden for each in contenders if each.golden is not None), None)
    if context.data is not None or given is not None or golden is None:
        return context
    return _with_rows(context, str(golden), None)


def _around(contender: Contender, context: Context) -> dict[str, float]:
    """Ms before and after the model, of one sample, where the artifact carries that."""
    from mlpack.api.pipeline_timings import pipeline_parts

    stored = contender.stored
    if stored is None or stored.artifact.pipeline is None:
        return {}
    return pipeline_parts(stored.path / stored.artifact.pipeline.path, stored.path / "golden", context.reporter.say)


def _raw_of(contenders: list[Contender]) -> RawOptions | None:
    """How raw data is read: as the first artifact that says so does it."""
    told = (raw_options(each.stored) for each in contenders if each.stored is not None)
    return next((each for each in told if each is not None), None)


def _with_rows(context: Context, path: str, contender: Contender | None, raw: RawOptions | None = None) -> Context:
    """The context with this data, unsplit: nothing is judged on it. `random:N` needs a model's inputs."""
    from mlpack.datasets import open_data
    from mlpack.datasets.ref import make_ref

    data = open_data(path, contender.model.inputs if contender else None, raw=raw)
    return replace(context, data=make_ref(path, data, raw=raw), parts=dict.fromkeys(PARTS, data.fingerprint))


def _time(contenders: list[Contender], context: Context, sizes: tuple[int, ...], launches: int, seconds: float) -> Done:
    from mlpack.engine.run import run
    from mlpack.stages.profile_latency import ProfileLatency

    first, *others = contenders
    return run(
        ProfileLatency(batches=sizes, launches=launches, seconds=seconds, starts=min(STARTS, launches), needed="first"),
        first.model,
        context,
        rivals={each.key: each.model for each in others},
        label="timing" if not others else f"timing {len(contenders)} contenders in turns",
    )
