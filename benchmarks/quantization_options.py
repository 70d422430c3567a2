"""What each option of static int8 does to what a model answers: SQNR and agreement on rows that were not looked at.

Every option is tried on the same simplified graph, with the same calibration rows, by operators and by calibration
method. Ranges found once are taken again where they fit the graph. These are no timings: a busy machine will do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import opening
import record
import tables

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context

MODELS = ("digits-resnet", "emoji-efficientnet", "reviews-minilm")
OPERATORS = ("weighted", "all")
METHODS = ("minmax", "mse")
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "bias_correction": {"bias_correction": True},
    "rounding": {"rounding": "adaptive"},
    "rounding, bias_correction": {"rounding": "adaptive", "bias_correction": True},
    "smooth": {"smooth": 0.5},
    "equalize": {"equalize": True},
    "equalize, bias_correction": {"equalize": True, "bias_correction": True},
}
SAMPLES = 128
ROWS = 512
BATCH = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=OPTIONS, help="others keep their rows")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="calibration samples at most")
    given = parser.parse_args()
    rows = {key(row): row for row in (record.read("quantization_options") or {"rows": []})["rows"]}
    with tempfile.TemporaryDirectory(prefix="quantization-options-") as folder:
        for name in given.models:
            place = Path(folder) / name
            place.mkdir()
            bench = Bench(name, place, given.samples)
            for operators in OPERATORS:
                for method in METHODS:
                    rows |= {key(row): row for row in bench.rows(operators, method, given.options)}
                    ordered = sorted(rows.values(), key=lambda row: (*key(row)[:3], list(OPTIONS).index(row["option"])))
                    record.write("quantization_options", {"rows": ordered})
                    tables.render_all()
    return 0


def key(row: dict[str, Any]) -> tuple[str, ...]:
    """What a row is of."""
    return tuple(row[name] for name in ("model", "operators", "method", "option"))


class Bench:
    """A sample model's simplified graph, the rows to judge on, and what the float graph answers to them."""

    def __init__(self, name: str, place: Path, samples: int) -> None:
        self.name, self.place, self.samples = name, place, samples
        self.model, self.context = simplified(name, place)
        self.inputs = unseen(self.model, self.context)
        self.true = answers(self.model, self.inputs)

    def rows(self, operators: str, method: str, options: list[str]) -> list[dict[str, Any]]:
        """One for each option; where it leaves the graph as it was, `changed` is false."""
        made: list[dict[str, Any]] = []
        known: list[Path] = []
        plain: dict[str, str] = {}
        for option in dict.fromkeys(["none", *options]):
            told = OPTIONS[option]
            done = self.quantized(known, operators=operators, calibration_method=method, **told)
            files = done.model.digests()
            plain = plain or files
            got = answers(done.model, self.inputs)
            row = {
                "model": self.name, "operators": operators, "method": method, "option": option,
                "changed": files != plain, "sqnr_db": round(sqnr(self.true, got), 2),
                "agreement": round(float((self.true.argmax(-1) == got.argmax(-1)).mean()), 4),
                "samples": self.samples, "rows": len(got), "seconds": round(done.seconds, 1),
            }  # fmt: skip
            made.append(row)
            print(json.dumps(row), flush=True)
        return made

    def quantized(self, known: list[Path], **options: Any) -> Done:
        """Static int8, with the newest of the known ranges that fit the graph, else with ranges of its own."""
        from mlpack.engine.run import run
        from mlpack.errors import UsageError
        from mlpack.stages.quantize import Quantize

        told = {"numerics": "int8", "method": "static", "samples": self.samples, **options}
        for path in reversed(known):
            try:
                return run(Quantize(**told, ranges=str(path)), self.model, self.context)
            except UsageError:
                continue
        done = run(Quantize(**told), self.model, self.context)
        path = self.place / f"{done.key}.json"
        path.write_text(done.report.model_dump_json(), encoding="utf-8")
        known.append(path)
        return done


def simplified(name: str, place: Path) -> tuple[Model, Context]:
    """The graph that a recipe hands to quantize, and what stages run in."""
    from mlpack.engine.run import run
    from mlpack.stages.simplify import Simplify

    graph, context = exported(name, place)
    return run(Simplify(), graph, context).model, context


def exported(name: str, place: Path) -> tuple[Model, Context]:
    """The graph as it was exported, and what stages run in."""
    found = opening.opened(record.sample(name), place)
    return found.exported(), found.context


def unseen(model: Model, context: Context) -> dict[str, np.ndarray]:
    """Rows that no calibration sees."""
    from mlpack.datasets.ref import open_part

    assert context.data is not None
    batches = []
    for batch in open_part(context.data, "confirming", model.inputs).batches(BATCH):
        batches.append(batch.inputs)
        if len(batches) * BATCH >= ROWS:
            break
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def answers(model: Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The first output, in ONNX Runtime with the kernels that would serve it."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(str(model.entry_path), settings, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: array[start : start + BATCH] for name, array in inputs.items()})[0]
        for start in range(0, count, BATCH)
    ]
    return np.concatenate(parts)


def sqnr(true: np.ndarray, got: np.ndarray) -> float:
    """Of the power of the float graph's answers over that of the difference, in dB."""
    known = true.astype(np.float64)
    return float(10 * np.log10(np.square(known).sum() / np.square(known - got).sum()))


if __name__ == "__main__":
    sys.exit(main())
