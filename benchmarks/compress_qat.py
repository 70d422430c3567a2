"""Int8 before and after quantization-aware training: accuracy on rows that nothing has seen, speed, time and memory.

Every way to quantize is made twice from the same simplified graph, as it comes and trained on `train.npz`, the rows
that the sample model itself was trained on. Both are scored on the confirming rows, on ONNX Runtime and on OpenVINO,
and timed in turns on ONNX Runtime: the graph is the same, so the speed should be. `--epochs` and `--seconds`
make it short.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opening
import record
import tables

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.engine.cache import Done

MODELS = ("tiny-mlp", "digits-resnet", "reviews-minilm")
# One step for a whole weight is what some kernels ask for; all operators is what others gain most from.
WAYS: dict[str, dict[str, Any]] = {
    "weighted": {"operators": "weighted"},
    "all": {"operators": "all"},
    "all, per tensor": {"operators": "all", "per_channel": False},
}
BACKENDS = ("onnxruntime", "openvino")
LIMIT = "1%"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--epochs", type=int, help="of training")
    parser.add_argument("--seconds", type=float, help="of training at the most")
    given = parser.parse_args()
    training = {name: value for name in ("epochs", "seconds") if (value := getattr(given, name)) is not None}
    rows = {(row["model"], row["way"]): row for row in (record.read("compress_qat") or {"rows": []})["rows"]}
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="qat-") as folder:
            bench = Bench(name, Path(folder), training)
            for way in given.ways:
                rows[name, way] = bench.row(way)
                ordered = [rows[model, each] for model in MODELS for each in WAYS if (model, each) in rows]
                record.write("compress_qat", {"limit": LIMIT, "rows": ordered})
                tables.render_all()
    return 0


class Bench:
    """One sample model's simplified graph, and what judges what is made of it."""

    def __init__(self, name: str, place: Path, training: dict[str, Any]) -> None:
        self.name, self.training = name, training
        rows = f"sample_models/{name}/train.npz"
        found = opening.opened(record.sample(name), place, numerics="int8", train=rows)
        self.judge, self.context, self.graph = found.judge(LIMIT), found.context, found.simplified()
        self.recipe = self.judge.recipe

    def row(self, way: str) -> dict[str, Any]:
        """What one way to quantize gives, as it comes and trained."""
        made = {train: self._made(train, WAYS[way]) for train in ("never", "always")}
        served = {
            (train, backend): self._served(done.model, backend) for train, done in made.items() for backend in BACKENDS
        }
        told = made["always"].report.metrics["training"]
        row = {
            "model": self.name,
            "way": way,
            "metric": self.recipe.accuracy.options["metric"],
            "before": {backend: self._accuracy(served["never", backend]) for backend in BACKENDS},
            "after": {backend: self._accuracy(served["always", backend]) for backend in BACKENDS},
            "sqnr_db": [next(iter(told[name].values()), None) for name in ("sqnr_before", "sqnr_after")],
            "training": {name: told[name] for name in ("rows", "steps", "seconds", "stopped", "alpha", "difference")},
            "seconds": [round(done.seconds, 1) for done in made.values()],
            "peak_mb": [round(done.peak_rss_bytes / 1e6) for done in made.values()],
            "share": made["always"].model.numerics_share,
            "speed": self._speed(served["never", "onnxruntime"], served["always", "onnxruntime"]),
        }
        print(json.dumps(row), flush=True)
        return row

    def _made(self, train: str, options: dict[str, Any]) -> Done:
        from mlpack.engine.run import run
        from mlpack.stages.quantize import Quantize

        told = {"training": self.training} if train == "always" else {}
        return run(Quantize(numerics="int8", method="static", train=train, **told, **options), self.graph, self.context)

    def _served(self, model: Model, backend: str) -> Model:
        from mlpack.engine.run import run
        from mlpack.stages.compile import Compile

        return run(Compile(backend=backend), model, self.context).model

    def _accuracy(self, model: Model) -> dict[str, Any]:
        """On the confirming rows, beside the original."""
        done = self.judge.score(model, "confirming")
        found = self.judge.compare(self.judge.original("confirming"), done)
        return found.model_dump(include={"baseline", "optimized", "drop", "drop_ci90", "verdict", "samples", "limit"})

    def _speed(self, plain: Model, trained: Model) -> dict[str, Any]:
        """By batch size: the median ms of both, and how many times as fast the trained one is."""
        from mlpack.engine.run import run
        from mlpack.engine.validate import options_of

        step = self.recipe.latency.model_copy(update={"options": {**self.recipe.latency.options, "components": False}})
        done = run(options_of(step), trained, self.context, rivals={"plain": plain}, label="timing both in turns")
        found: dict[str, Any] = {}
        for line in done.report.tables["latency"]:
            mine = found.setdefault(str(line["batch"]), {})
            if line["contender"] == "plain":
                mine |= {"plain_ms": line["p50"], "times": line["speedup_over"], "ci95": line["speedup_over_ci95"]}
            else:
                mine["trained_ms"] = line["p50"]
        return found


if __name__ == "__main__":
    sys.exit(main())
