"""Weights in blocks of four bits: accuracy, size and speed by method and block size, beside onnxruntime's own.

All are made of the same simplified graph with the same calibration rows, judged on the confirming rows of the data, and
timed in turns with the float graph, each launch a fresh process. A quiet machine, please.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opening
import record
import tables

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.engine.context import Context

MODELS = ("reviews-minilm", "words-gru", "tiny-mlp")
WORKER = Path(__file__).with_name("compress_int4_worker.py")
OURS: dict[str, dict[str, Any]] = {
    "rtn": {"method": "rtn"},
    "rtn, float activations": {"method": "rtn", "activations": "float"},
    "hqq": {"method": "hqq"},
    "gptq": {"method": "gptq"},
    "gptq, in order": {"method": "gptq", "act_order": False},
    "gptq, symmetric": {"method": "gptq", "symmetric": True},
    "gptq, float tables": {"method": "gptq", "embeddings": False},
}
THEIRS = ("rtn", "k_quant", "hqq", "gptq")
BLOCKS = (32, 128)
FLOAT = "fp32"
SAMPLES, BATCH = 256, 16
# What is in other formats and backends is timed beside; these are the fewest launches with an interval.
LAUNCHES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="others keep their rows")
    parser.add_argument("--blocks", nargs="+", type=int, default=list(BLOCKS), choices=(16, 32, 64, 128))
    parser.add_argument("--quick", action="store_true", help="two short launches: a trial of the script")
    given = parser.parse_args()
    kept = (record.read("compress_int4") or {"rows": []})["rows"]
    rows = [row for row in kept if row["model"] not in given.models]
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="compress-int4-") as folder:
            rows += Bench(name, record.sample(name), Path(folder), quick=given.quick).rows(given.blocks)
        record.write("compress_int4", {"rows": rows, "quick": given.quick})
        tables.render_all()
    return 0


@dataclass(frozen=True)
class Made:
    """A model in four bits, and what it took to make it; `model` is None where it could not be made."""

    by: str
    method: str
    block: int | None
    model: Model | None
    seconds: float | None = None
    peak_mb: float | None = None
    error: str | None = None


class Bench:
    """A model's simplified graph, and all that is made of it."""

    def __init__(self, name: str, words: list[str], place: Path, *, quick: bool) -> None:
        self.name, self.place, self.quick = name, place, quick
        found = opening.opened(words, place)
        self.context, self.model, self.judge = found.context, found.simplified(), found.judge()

    def rows(self, blocks: list[int]) -> list[dict[str, Any]]:
        """One for each way, the float graph first."""
        write_calibration(self.model, self.context, self.place)
        made = [Made("", FLOAT, None, self.model)]
        for block in blocks:
            made += [self.ours(label, block) for label in OURS]
            made += [self.theirs(method, block) for method in THEIRS]
        ready = {f"c{at}": self.opened(each) for at, each in enumerate(made)}
        ms = self.timed({label: model for label, model in ready.items() if model is not None})
        found = []
        for at, each in enumerate(made):
            model, label = ready[f"c{at}"], f"c{at}"
            row = {
                "model": self.name, "by": each.by, "method": each.method, "block": each.block, "error": each.error,
                "seconds": each.seconds, "peak_mb": each.peak_mb,
                "size_mb": None if model is None else round(model.size_bytes / 1e6, 2),
                **(self.judged(model) if model is not None else {}), "p50_ms": ms.get(label, {}),
            }  # fmt: skip
            found.append(row)
            print(json.dumps(row), flush=True)
        return found

    def ours(self, label: str, block: int) -> Made:
        """By the quantize stage."""
        from mlpack.engine.run import run
        from mlpack.errors import MlpackError
        from mlpack.stages.quantize import Quantize
        from mlpack.stages.quantize_flavours import in_blocks

        stage = in_blocks(Quantize(numerics="int4", block=block, samples=SAMPLES, **OURS[label]), self.context.target)
        try:
            done = run(stage, self.model, self.context)
        except MlpackError as error:
            return Made("mlpack", label, block, None, error=error.message)
        return Made("mlpack", label, block, done.model, round(done.seconds, 1), round(done.peak_rss_bytes / 1e6))

    def theirs(self, method: str, block: int) -> Made:
        """By onnxruntime's quantizer, in a process of its own."""
        inputs = [spec.name for spec in self.model.inputs]
        job = {"graph": str(self.model.entry_path), "place": str(self.place), "method": method, "block": block}
        words = [sys.executable, str(WORKER), json.dumps({**job, "inputs": inputs})]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            return Made("onnxruntime", method, block, None, error=done.stderr.strip().splitlines()[-1][:200])
        told = json.loads(done.stdout.strip().splitlines()[-1])
        path = Path(told["file"])
        model = self.model.model_copy(update={"path": path.parent, "entry": path.name, "numerics": "int4"})
        return Made("onnxruntime", method, block, model, told["seconds"], told["peak_mb"])

    def opened(self, made: Made) -> Model | None:
        """As onnxruntime serves it."""
        from mlpack.engine.run import run
        from mlpack.stages.compile import Compile

        if made.model is None:
            return None
        return run(Compile(backend="onnxruntime"), made.model, self.context).model

    def judged(self, model: Model) -> dict[str, Any]:
        """The drop on the confirming rows with its interval."""
        found = self.judge.compare(self.judge.original("confirming"), self.judge.score(model, "confirming"))
        unit = 100 if found.percent else 1
        return {
            "value": round(found.optimized * unit, 2),
            "drop": round(found.drop * unit, 3),
            "drop_ci90": [round(end * unit, 3) for end in found.drop_ci90],
            "samples": found.samples,
        }

    def timed(self, contenders: dict[str, Model]) -> dict[str, dict[str, float]]:
        """Median ms by batch size, all in turns."""
        from mlpack.engine.run import run
        from mlpack.stages.profile_latency import OPTIMIZED, ProfileLatency

        launches = {"launches": 2, "most_launches": 2, "seconds": 0.05} if self.quick else {"launches": LAUNCHES}
        stage = ProfileLatency(components=False, time_limit=600, **launches)
        first, *others = contenders
        rivals = {label: contenders[label] for label in others}
        table = run(stage, contenders[first], self.context, rivals=rivals).report.tables["latency"]
        found: dict[str, dict[str, float]] = {}
        for row in table:
            label = first if row["contender"] == OPTIMIZED else row["contender"]
            found.setdefault(label, {})[str(row["batch"])] = round(row["p50"], 4)
        return found


def write_calibration(model: Model, context: Context, place: Path) -> None:
    """The rows that GPTQ sees, as files: onnxruntime's worker has no more of mlpack than its memory."""
    from mlpack.core.arrays import save_arrays
    from mlpack.datasets.ref import open_part

    assert context.data is not None
    done = 0
    for at, batch in enumerate(open_part(context.data, "calibration", model.inputs).batches(BATCH)):
        save_arrays(place / f"calibration-{at:04d}.npz", batch.inputs)
        done += len(batch)
        if done >= SAMPLES:
            return


if __name__ == "__main__":
    sys.exit(main())
