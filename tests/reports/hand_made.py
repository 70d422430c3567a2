"""Artifacts made by hand, published through the store: what a report is rendered from, without a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# The sample artifact is the store's; test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

from sample_artifact import make_artifact, make_draft

from mlpack.core.arrays import save_arrays
from mlpack.core.artifact import Artifact
from mlpack.store.publish import publish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Stored

BATCHES = (1, 8)


def candidate(label: str, *, score: float, drop: float, ms: float | None, mb: float = 20, **changes: Any) -> dict:
    """One row of candidates; not timed where `ms` is None."""
    return {
        "label": label,
        "recipe": "export → quantize",
        "numerics": "int8",
        "backend": "onnxruntime",
        "accuracy": {"metric": "top1", "optimized": score, "drop": drop, "drop_ci90": [drop - 0.01, drop + 0.01],
                     "verdict": "pass", "samples": 1000},
        "latency": None if ms is None else {"p50_ms": {"1": ms, "8": 4 * ms}, "geometric_mean_ms": 2 * ms},
        "size_bytes": int(mb * 1e6),
        "chosen": False,
        "why": "is slower",
        **changes,
    }  # fmt: skip


CANDIDATES = [
    candidate("fp32 · openvino", score=0.79, drop=0.0, ms=7.8, mb=89.6),
    candidate("int8 dynamic · onnxruntime", score=0.788, drop=0.002, ms=3.1, chosen=True, why="the fastest of all"),
    candidate("int8 static (all) · openvino", score=0.51, drop=0.28, ms=None, why="drops 28.00pt, over the limit"),
    candidate("int8 static (weighted) · openvino", score=0.785, drop=0.005, ms=3.6, mb=58),
]  # fmt: skip
COMPONENTS = [
    {"name": "copy in", "p50": 0.02, "share": 0.02},
    {"name": "MatMul", "p50": 0.68, "share": 0.68},
    {"name": "21 other operators", "p50": 0.29, "share": 0.29},
    {"name": "copy out", "p50": 0.01, "share": 0.01},
]


def latency(batch: int, **changes: Any) -> dict[str, Any]:
    """One row of the final timing."""

    def timing(ms: float) -> dict[str, Any]:
        return {"p50": ms, "p99": None, "p99_reason": "60 calls cannot carry a p99", "n": 60, "launches": 5}

    return {
        "batch": batch, "threads": 2, "device": "cpu", "backend": "onnxruntime", "baseline": timing(17.1 * batch),
        "optimized": timing(3.2 * batch), "speedup": 5.34, "speedup_ci95": [5.1, 5.6], **changes,
    }  # fmt: skip


def timings(calls: int = 60, launches: int = 5, batches: tuple[int, ...] = BATCHES) -> dict[str, np.ndarray]:
    """Milliseconds of each call, as the latency stage keeps them."""
    random = np.random.default_rng(4)
    return {
        f"{contender}/{batch}/{launch}": ms * batch * random.lognormal(0.1, 0.1, calls)
        for contender, ms in (("optimized", 3.1), ("baseline", 17.0))
        for batch in batches
        for launch in range(launches)
    }


FULL: dict[str, Any] = {
    "candidates": CANDIDATES,
    "components": COMPONENTS,
    "latency": [latency(batch) for batch in BATCHES],
    "recipe": {"source": {"model": "model.pt2"}, "steps": [{"export": {}}]},
}


def publish_by_hand(
    store: Path,
    timed: Mapping[str, np.ndarray] | None = None,
    reports: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Stored:
    """The sample artifact with `changes` (`accuracy__verdict="fail"`), its timings and its stages' reports."""
    document = make_artifact().model_dump(mode="json", by_alias=True)
    for key, value in changes.items():
        *route, last = key.split("__")
        part = document
        for step in route:
            part = part[step]
        part[last] = value
    draft = make_draft(store.parent / "draft")
    for name, report in (reports or {}).items():
        (draft / "reports" / f"{name}.json").write_text(json.dumps(report))
    if timed:
        save_arrays(draft / "reports" / "latency-timings.npz", timed)
    return publish(store, draft, Artifact.model_validate(document))
