"""A small artifact, complete in all its records, and the folder it is published from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlpack.core.artifact import (
    AccuracyRecord,
    Artifact,
    LatencyRecord,
    LineageRecord,
    ModelRecord,
    SourceRecord,
    Timing,
)
from mlpack.core.backend_options import BackendOptions
from mlpack.core.model import Quantization, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path


def make_draft(folder: Path, weights: bytes = b"weights") -> Path:
    for relative, content in {
        "model/model.onnx": b"graph",
        "model/model.onnx.data": weights,
        "golden/inputs.npz": b"inputs",
        "reports/check_accuracy.json": b"{}",
    }.items():
        file = folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def make_artifact(
    name: str = "reviews",
    *,
    numerics: str = "int8",
    verdict: Any = "pass",
    status: Any = "final",
    limit: str = "1%",
    keys: tuple[str, ...] = ("k1", "k2"),
    libraries: dict[str, str] | None = None,
) -> Artifact:
    timing = Timing(p50=4.0, p99=None, p99_reason="too few", n=50, launches=5)
    return Artifact(
        name=name,
        version=0,
        status=status,
        created="2026-11-22T04:00:00+00:00",
        mlpack_version="0.1.0",
        source=SourceRecord(path="model.pt2", sha256="0" * 64, kind="exported program"),
        target={"name": "cpu"},
        model=ModelRecord(
            path="model",
            entry="model.onnx",
            format="onnx",
            backend="onnxruntime",
            backend_options=BackendOptions(threads=2),
            numerics=numerics,
            numerics_share=0.92,
            quantization=Quantization(rules="x86-vnni-u8s8", method="static", details={"bits": 8}),
            digest="1" * 64,
            inputs=(TensorSpec(name="x", dtype="float32", dims=("batch", 4)),),
            outputs=(TensorSpec(name="y", dtype="float32", dims=("batch", 2)),),
            size_bytes=1200,
        ),
        baseline={"size_bytes": 4800},
        lineage=tuple(
            LineageRecord(stage=stage, options={"numerics": numerics}, key=key, seconds=1.5, peak_rss_bytes=10**8)
            for stage, key in zip(("export", "quantize", "simplify"), keys, strict=False)
        ),
        accuracy=AccuracyRecord(
            metric="top1",
            backend="onnxruntime",
            batch=1,
            batch_dependent=False,
            samples=1000,
            baseline=0.792,
            optimized=0.79,
            errors_baseline=208,
            errors_optimized=210,
            drop=0.002,
            drop_ci90=(-0.001, 0.005),
            limit=0.00792,
            limit_text=limit,
            verdict=verdict,
        ),
        latency=(
            LatencyRecord(
                batch=1,
                threads=2,
                device="cpu",
                backend="onnxruntime",
                baseline=timing,
                optimized=timing,
                speedup=2.5,
                speedup_ci95=(2.3, 2.7),
            ),
        ),
        environment={"python": "3.11", "libraries": libraries or {"onnxruntime": "1.31.1"}},
        files={},
    )
