"""Does the same measurement give the same number? Ten runs of each speed-up.

Speeds are measured as `optimize` and `bench` measure them: the same stage with its default options.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
import tables

import mlpack

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = ("tiny-mlp", "digits-resnet", "reviews-minilm")
MOST_SPREAD = {1: 0.08, 8: 0.03}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--launches", type=int, default=5, help="fresh processes in one run, as bench's --launches")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="repeatability-") as folder:
        speeds = [repeated(model, given.runs, given.launches, Path(folder)) for model in given.models]
    record.write("repeatability", {"spread_limits": MOST_SPREAD, "speeds": speeds})
    tables.render_all()
    print(tables.repeatability(record.read("repeatability") or {}))
    steady = all(row["spread"] <= MOST_SPREAD[row["batch"]] for each in speeds for row in each["batches"])
    return 0 if steady else 1


def artifact_of(model: str, folder: Path) -> Path:
    """The sample model, optimized without a numerics flag, in a store of its own."""
    store = folder / "artifacts"
    quick = [word for word in record.QUICK if word != "--set"]
    code, data = (record.ROOT / "sample_models" / model / name for name in ("model.py", "eval.npz"))
    done = mlpack.optimize(f"{code}:model", data=data, store=store, settings=quick, max_drop="none")
    return Path(done.stored.path)


def repeated(model: str, runs: int, launches: int, folder: Path) -> dict[str, Any]:
    """The artifact against PyTorch eager, so many times; the spread is the largest distance from the median."""
    artifact = artifact_of(model, folder)
    code = f"{record.ROOT / 'sample_models' / model / 'model.py'}:model"
    speeds: dict[int, list[float]] = {}
    medians: dict[int, list[list[float]]] = {}
    steady = []
    for _ in range(runs):
        done = mlpack.bench(
            [code, str(artifact)], data=record.ROOT / "sample_models" / model / "eval.npz", launches=launches
        )
        steady.append(done.steady)
        for timed in done.contenders[1].latency:
            assert timed.speedup is not None
            speeds.setdefault(timed.batch, []).append(timed.speedup)
        for original, timed in zip(*(each.latency for each in done.contenders), strict=True):
            medians.setdefault(timed.batch, []).append([original.timing.p50, timed.timing.p50])
        print(model, {batch: round(each[-1], 3) for batch, each in speeds.items()}, flush=True)
    rows = []
    for batch, each in speeds.items():
        original, optimized = zip(*medians[batch], strict=True)
        rows.append(
            {
                "batch": batch,
                "speedups": each,
                "median": float(np.median(each)),
                "spread": spread(each),
                "p50_ms": {"original": original, "optimized": optimized},
                "p50_spread": {"original": spread(original), "optimized": spread(optimized)},
            }
        )
    return {"model": model, "runs": runs, "launches": launches, "steady": sum(steady), "batches": rows}


def spread(values: Sequence[float]) -> float:
    """The largest distance from the median, relative to it."""
    middle = float(np.median(values))
    return max(abs(value / middle - 1) for value in values)


if __name__ == "__main__":
    sys.exit(main())
