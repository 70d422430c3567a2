"""Artifact: what is published. `artifact.json` as a typed record; immutable once written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mlpack.core.backend_options import BackendOptions
from mlpack.core.model import Format, Model, Quantization, TensorSpec
from mlpack.core.words import Frozen

SCHEMA = 1
Verdict = Literal["pass", "likely", "inconclusive", "fail", "none"]


class SourceRecord(Frozen):
    """What the user handed in: its path as given, its sha256, and what kind of source it was."""

    path: str
    sha256: str
    kind: str


class ModelRecord(Frozen):
    """What runs: format says what the file is, backend who runs it, backend_options how, verbatim."""

    path: str
    entry: str
    format: Format
    backend: str
    backend_options: BackendOptions
    numerics: str
    numerics_share: float
    quantization: Quantization | None
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    only: str | None = Field(default=None, description="the one backend that has the graph's operators; null: any")
    largest: dict[str, int] = Field(default_factory=dict, description="largest size of a named dim that has one")
    size_bytes: int


class LineageRecord(Frozen):
    """One stage that the model went through."""

    stage: str
    options: dict[str, Any]
    key: str
    seconds: float
    peak_rss_bytes: int


class GroupRecord(Frozen):
    """The paired comparison within one group of samples; the intervals of all groups hold together with 90%."""

    group: str
    samples: int
    baseline: float | None = None
    optimized: float | None = None
    drop: float | None = None
    interval: tuple[float, float] | None = None
    verdict: Verdict


class AccuracyRecord(Frozen):
    """The paired comparison with the original.

    `drop`, its interval and `limit` are absolute in the metric's unit, positive = worse; `limit_text` keeps the
    user's words.
    """

    metric: str
    backend: str
    batch: int
    batch_dependent: bool
    simulated: bool = False
    verified_on: Literal["labels", "agreement", "synthetic"] = "labels"
    samples: int
    baseline: float | None
    optimized: float | None
    errors_baseline: int | None = None
    errors_optimized: int | None = None
    drop: float | None
    drop_ci90: tuple[float, float] | None
    limit: float | None
    limit_text: str | None
    verdict: Verdict
    samples_to_prove: int | None = None
    dataset: str | None = Field(default=None, description="fingerprint of the evaluation data, by content")
    part: str | None = Field(default=None, description="fingerprint of the rows that confirmed it")
    groups: tuple[GroupRecord, ...] = Field(default=(), description="by the data's array `group`, the worst first")


class Timing(Frozen):
    """Percentiles of one contender in ms, and its energy. `p99` is None where `n` cannot carry it."""

    p50: float
    p50_ci95: tuple[float, float] | None = None
    p99: float | None
    p99_ci95: tuple[float, float] | None = None
    p99_reason: str | None = None
    n: int
    launches: int
    threads: int | None = Field(default=None, description="of this contender; null: as many as the record says")
    energy_mj: float | None = Field(
        default=None, description="per sample, of the device that computes; null: no sensor"
    )


class LatencyRecord(Frozen):
    """The interleaved A/B with the baseline at one batch size.

    Everything is null, with a reason, where this machine is not the target; what is of the original is, where it is not
    timed because its weights lie on the disk.
    """

    unit: Literal["ms"] = "ms"
    batch: int
    threads: int
    device: str
    backend: str
    baseline: Timing | None
    optimized: Timing | None
    speedup: float | None
    speedup_ci95: tuple[float, float] | None
    steady: bool = Field(default=True, description="false: some launch never became steady, or the machine was busy")
    notes: tuple[str, ...] = Field(default=(), description="what disturbed the timing, and what was done about it")
    reason: str | None = None


class ComponentRecord(Frozen):
    """One component of a request: its median in ms and its share of the whole (shares sum to 1)."""

    name: str
    p50: float
    share: float


class ModuleRecord(Frozen):
    """What one module of the user's takes of a request, ms, in the original and now; null: it is not known."""

    module: str
    baseline: float | None
    optimized: float | None


class LengthRecord(Frozen):
    """Median ms of one sample of this length, in one launch, in the original and now; null: it was not timed."""

    length: int
    baseline: float | None
    optimized: float | None


class CandidateRecord(Frozen):
    """What was tried, what it measured, and why it was or was not chosen."""

    label: str = Field(default="", description="numerics, how they were made, backend: as tables name it")
    recipe: str
    numerics: str
    backend: str
    accuracy: dict[str, Any] | None
    latency: dict[str, Any] | None
    size_bytes: int | None
    chosen: bool
    why: str


class PredictedRecord(Frozen):
    """One batch size: predicted ms, and the floor, which no run is faster than; null where there is none."""

    batch: int
    ms: float | None
    floor_ms: float | None


class PredictionRecord(Frozen):
    """What the model is likely to take on a target that is not here, by its graph: never measured.

    `reason` says why nothing is predicted.
    """

    numerics: str
    threads: int
    batches: tuple[PredictedRecord, ...]
    reason: str | None
    rests_on: dict[str, Any] = Field(
        default_factory=dict, description="library, machine, day, and errors for models left out of the learning"
    )


class PipelineRecord(Frozen):
    """What comes before and after the model: kinds as pipeline.yaml has them; `fields` are those of a raw sample."""

    path: str
    preprocess: str | None
    postprocess: str | None
    fields: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    digest: str = Field(description="sha256 over pipeline.yaml and the files beside it")


class ParentRecord(Frozen):
    """The artifact whose graph this one was built from, on the machine that it is for."""

    name: str
    version: int
    digest: str


class Artifact(Frozen):
    """The content of `artifact.json`."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    name: str
    version: int
    digest: str = ""
    status: Literal["final", "candidate"]
    created: str
    mlpack_version: str
    source: SourceRecord
    parent: ParentRecord | None = Field(default=None, description="null: made from the source by this run")
    target: dict[str, Any]
    model: ModelRecord
    pipeline: PipelineRecord | None = None
    baseline: dict[str, Any]
    lineage: tuple[LineageRecord, ...]
    accuracy: AccuracyRecord
    latency: tuple[LatencyRecord, ...]
    prediction: PredictionRecord | None = Field(default=None, description="of a target that was not here")
    components: tuple[ComponentRecord, ...] = ()
    components_before: tuple[ComponentRecord, ...] = Field(default=(), description="of the original")
    modules: tuple[ModuleRecord, ...] = Field(default=(), description="at the first batch size, by module path")
    lengths: tuple[LengthRecord, ...] = Field(
        default=(), description="where samples differ in length: the shortest, the longest, and quantiles between"
    )
    candidates: tuple[CandidateRecord, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict)
    golden: dict[str, Any] = Field(
        default_factory=dict, description="tolerance: {output: {absolute, relative}}, samples, batch"
    )
    environment: dict[str, Any]
    files: dict[str, str] = Field(description="sha256 by relative path of every file but artifact.json")

    def identity(self) -> str:
        """Sha256 of the canonical artifact.json without `digest`."""
        return digest_of(self.model_dump(mode="json", by_alias=True))


def digest_of(content: dict[str, Any]) -> str:
    """Sha256 of the content of an artifact.json without its `digest`."""
    return hashlib.sha256(canonical({name: each for name, each in content.items() if name != "digest"})).hexdigest()


def canonical(content: Any) -> bytes:
    """JSON with sorted keys and no spaces: the form that digests are taken of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Stored(Frozen):
    """An artifact and the folder it lies in."""

    path: Path
    artifact: Artifact

    @property
    def model(self) -> Model:
        """The model in the folder, ready for a backend to open."""
        record = self.artifact.model
        return Model(
            path=self.path / record.path,
            entry=record.entry,
            format=record.format,
            inputs=record.inputs,
            outputs=record.outputs,
            largest=record.largest,
            only=record.only,
            numerics=record.numerics,
            numerics_share=record.numerics_share,
            quantization=record.quantization,
            backend=record.backend,
            backend_options=record.backend_options,
        )
