"""What a run found, as the records of `artifact.json`."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any, Literal

from mlpack.core.artifact import (
    AccuracyRecord,
    CandidateRecord,
    ComponentRecord,
    LatencyRecord,
    LengthRecord,
    LineageRecord,
    ModelRecord,
    ModuleRecord,
    Timing,
)
from mlpack.engine.screening import pace
from mlpack.measure.disturbance import notes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlpack.core.model import Model
    from mlpack.core.target import Target
    from mlpack.engine.cache import Done
    from mlpack.engine.candidates import Candidate
    from mlpack.engine.context import Context
    from mlpack.engine.judge import Found

_LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "openvino", "numpy")
_NOT_TIMED = "the original's weights lie on the disk, and its time would be that of reading them"


def lineage_of(stages: Iterable[Done]) -> tuple[LineageRecord, ...]:
    """Every stage that the model went through, with its key and cost."""
    return tuple(
        LineageRecord(
            stage=done.stage,
            options=done.options,
            key=done.key,
            seconds=done.seconds,
            peak_rss_bytes=done.peak_rss_bytes,
        )
        for done in stages
    )


def model_of(model: Model) -> ModelRecord:
    """The model as it lies in the artifact; its digest covers `model/` alone."""
    import hashlib

    from mlpack.core.artifact import canonical

    assert model.backend is not None
    return ModelRecord(
        path="model",
        entry=model.entry,
        format=model.format,
        backend=model.backend,
        backend_options=model.backend_options,
        numerics=model.numerics,
        numerics_share=model.numerics_share,
        quantization=model.quantization,
        digest=hashlib.sha256(canonical(model.digests())).hexdigest(),
        inputs=model.inputs,
        outputs=model.outputs,
        largest=model.largest,
        only=model.only,
        size_bytes=model.size_bytes,
    )


def accuracy_of(found: Found, context: Context, *, synthetic: bool, simulated: bool) -> AccuracyRecord:
    """The verdict on the confirming rows. On synthetic rows nothing is judged."""
    comparison = found.comparison
    backend = found.winner.model.backend
    assert backend is not None
    agreement = comparison.metric == "agreement"
    return AccuracyRecord(
        metric=comparison.metric,
        backend=backend,
        batch=found.batch,
        batch_dependent=found.batch_dependent,
        simulated=simulated,
        verified_on="synthetic" if synthetic else "agreement" if agreement else "labels",
        samples=comparison.samples,
        baseline=comparison.baseline,
        optimized=comparison.optimized,
        errors_baseline=comparison.errors_baseline,
        errors_optimized=comparison.errors_optimized,
        drop=comparison.drop,
        drop_ci90=comparison.drop_ci90,
        limit=None if synthetic else comparison.limit,
        limit_text=None if synthetic else comparison.limit_text,
        verdict="none" if synthetic else comparison.verdict,
        samples_to_prove=comparison.samples_to_prove,
        dataset=None if context.data is None else context.data.fingerprint,
        part=context.part_fingerprint("confirming"),
        groups=found.groups,
    )


def latency_of(timed: Done | None, model: Model, target: Target, threads: int) -> tuple[LatencyRecord, ...]:
    """One record per batch size; a single one with the reason where this machine is not the target."""
    assert model.backend is not None
    device = model.backend_options.device
    if timed is None:
        record = LatencyRecord(
            batch=1,
            threads=threads,
            device=device,
            backend=model.backend,
            baseline=None,
            optimized=None,
            speedup=None,
            speedup_ci95=None,
            reason=f"this machine is not {target.title}: latency has to be measured there",
        )
        return (record,)
    rows = timed.report.tables["latency"]
    batches = sorted({row["batch"] for row in rows})
    return tuple(
        _latency_at(batch, {row["contender"]: row for row in rows if row["batch"] == batch}, model, timed)
        for batch in batches
    )


def _latency_at(batch: int, rows: dict[str, dict[str, Any]], model: Model, timed: Done) -> LatencyRecord:
    baseline = rows.get("baseline")
    assert model.backend is not None
    return LatencyRecord(
        batch=batch,
        threads=timed.report.metrics["threads"],
        device=model.backend_options.device,
        backend=model.backend,
        steady=timed.report.metrics["steady"],
        notes=notes(timed.report.metrics),
        baseline=None if baseline is None else timing_of(baseline),
        optimized=timing_of(rows["optimized"]),
        speedup=None if baseline is None else baseline["speedup_over"],
        speedup_ci95=None if baseline is None else baseline["speedup_over_ci95"],
        reason=_NOT_TIMED if baseline is None else None,
    )


def timing_of(row: dict[str, Any]) -> Timing:
    """One row of the latency table as a record."""
    return Timing.model_validate({name: row[name] for name in Timing.model_fields})


def components_of(timed: Done | None, table: Literal["components", "components_before"]) -> tuple[ComponentRecord, ...]:
    """The component rows of the timing, of the model or of the original; none where nothing was timed."""
    if timed is None:
        return ()
    return tuple(ComponentRecord.model_validate(row) for row in timed.report.tables[table])


def modules_of(timed: Done | None) -> tuple[ModuleRecord, ...]:
    """The module rows of the timing, the original beside the model."""
    rows = [] if timed is None else timed.report.tables["modules"]
    return tuple(
        ModuleRecord(module=row["module"], baseline=row.get("baseline"), optimized=row.get("optimized")) for row in rows
    )


def lengths_of(timed: Done | None) -> tuple[LengthRecord, ...]:
    """What one sample of each length takes, the original beside the model."""
    rows = [] if timed is None else timed.report.tables["lengths"]
    return tuple(
        LengthRecord(length=row["length"], baseline=row.get("baseline"), optimized=row.get("optimized")) for row in rows
    )


def candidates_of(found: Found, *, smallest: bool) -> tuple[CandidateRecord, ...]:
    """Every candidate with what it measured on the choosing rows, and why it was taken or lost."""
    timed = "p50" in found.winner.facts
    best = "the smallest inside the limit" if smallest else "the fastest inside the limit" if timed else "drops least"
    return tuple(_candidate(each, best if each is found.winner else None) for each in found.candidates)


def _candidate(candidate: Candidate, best: str | None) -> CandidateRecord:
    comparison: Any = candidate.facts.get("comparison")
    p50 = candidate.facts.get("p50")
    made = candidate.model.backend is not None
    told = {"metric", "optimized", "drop", "drop_ci90", "verdict", "samples"}
    return CandidateRecord(
        recipe=" → ".join([*(done.stage for done in candidate.steps), *candidate.choices]),
        label=candidate.label,
        numerics=candidate.model.numerics,
        backend=candidate.model.backend or "–",
        accuracy=None if comparison is None else comparison.model_dump(mode="json", include=told),
        latency=None if p50 is None else {"p50_ms": p50, "geometric_mean_ms": pace(candidate)},
        size_bytes=candidate.model.size_bytes if made else None,
        chosen=best is not None,
        why=best or candidate.lost or "",
    )


def environment() -> dict[str, Any]:
    """Python, operating system, CPU, how much of it may be used, and the versions of the libraries that took part."""
    from mlpack.core import machine
    from mlpack.core.threads import usable_threads

    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": machine.cpu_name(),
        "cpus": usable_threads(),
        "gpu": next((device.name for device in machine.nvidia_devices()), None),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES if _installed(name)},
    }


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
