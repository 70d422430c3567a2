"""Int8 beside that of others on the sample models: accuracy left, speed, time and memory to make it.

All get the same simplified graph and the same calibration rows; those that search also get the rows that mlpack chooses
on, the metric and the limit. Every result is scored on the confirming rows, which nothing has seen, on the backend that
would serve it, and all are timed in turns with the original. mlpack is run as a user runs it, from nothing: its seconds
are those of the whole command, and `first` those of one that a time limit ends at its first candidate inside the limit,
of which `confirmed` is the part that the others' seconds are of: from the graph to the candidate's confirmed score.
The others live in environments of their own, whose interpreters are named: `--nncf PYTHON` (pip install nncf onnx
openvino pydantic), `--olive PYTHON` (pip install olive-ai requests onnx onnxruntime).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import opening
import record
import tables
from int8_worker import CALIBRATION_BATCH

from mlpack.core.backend_options import BackendOptions

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Model

MODELS = (
    "tiny-mlp", "digits-resnet", "digits-pairs", "digit-lines", "words-gru", "emoji-efficientnet", "reviews-minilm",
)  # fmt: skip
TRANSFORMERS = {"reviews-minilm", "bert-base"}
STATIC = "mlpack static, openvino"
LIMIT = "1%"
SAMPLES = 256
COSINES = 1024
# Each tool with the backend that serves what it makes.
TOOLS = {
    "onnxruntime static": "onnxruntime",
    "onnxruntime dynamic": "onnxruntime",
    "nncf": "openvino",
    "nncf accuracy control": "openvino",
    "olive search": "onnxruntime",
}
# As the first word of a tool's name.
ENVIRONMENTS = {"nncf": "NNCF", "olive": "Olive"}
WORKER = Path(__file__).with_name("int8_worker.py")
# 0 published, 5 refused with a reason, 6 published as a candidate: all of them are results.
RESULTS = {0, 5, 6}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    for word, title in ENVIRONMENTS.items():
        parser.add_argument(f"--{word}", metavar="PYTHON", help=f"the interpreter of an environment with {title}")
    given = parser.parse_args()
    pythons = {word: getattr(given, word) for word in ENVIRONMENTS}
    rows = {row["model"]: row for row in (record.read("int8") or {"models": []})["models"]}
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="int8-") as folder:
            rows[name] = Bench(name, Path(folder), pythons).row()
        ordered = [rows[model] for model in MODELS if model in rows]
        record.write("int8", {"limit": LIMIT, "samples": SAMPLES, "models": ordered})
        tables.render_all()
    print(tables.int8(record.read("int8") or {}))
    return 0 if all(rows[name]["mlpack"]["exit_code"] in RESULTS for name in given.models) else 1


class Bench:
    """One sample model: what each tool makes of it, judged and timed."""

    def __init__(self, name: str, place: Path, pythons: dict[str, str | None]) -> None:
        self.name, self.place = name, place
        self.pythons = {"onnxruntime": sys.executable, **pythons}
        found = opening.opened(record.sample(name), place)
        self.judge = found.judge(LIMIT)
        self.recipe, self.context, self.baseline = self.judge.recipe, found.context, found.original
        self.metric = self.recipe.accuracy.options["metric"]
        self.output = self.recipe.accuracy.options.get("output")
        self.graph = found.simplified()

    def row(self) -> dict[str, Any]:
        """All tools on this model."""
        self._write_rows("calibration", SAMPLES)
        self._write_rows("choosing", None)
        told, made = self._ours()
        peers: dict[str, dict[str, Any]] = {}
        models = {} if made is None else {"mlpack": made}
        for tool, backend in TOOLS.items():
            python = self.pythons[tool.partition(" ")[0]]
            if python is None:
                continue
            peers[tool] = self._made(tool, python)
            if "error" not in peers[tool]:
                models[tool] = self._model(Path(peers[tool].pop("file")), backend)
        if self.name in TRANSFORMERS:
            # What NNCF's preset for transformers makes is to be met on its own ground.
            peers[STATIC], models[STATIC] = self._static()
        for tool, model in models.items():
            about = told if tool == "mlpack" else peers[tool]
            about["accuracy"] = self._accuracy(model)
            if "error" not in about["accuracy"]:
                about["cosine"] = self._cosine(model)
        runs = {
            tool: model for tool, model in models.items() if "error" not in {**peers, "mlpack": told}[tool]["accuracy"]
        }
        for tool, speed in self._speeds(runs).items():
            (told if tool == "mlpack" else peers[tool])["speed"] = speed
        row = {"model": self.name, "metric": self.metric, "mlpack": told, "peers": peers}
        print(json.dumps(row), flush=True)
        return row

    def _write_rows(self, part: Part, most: int | None) -> None:
        """Whole batches as files: `part-0000.npz`, labels beside the inputs."""
        from mlpack.core.arrays import save_arrays
        from mlpack.datasets.ref import open_part

        assert self.context.data is not None
        rows = open_part(self.context.data, part, self.graph.inputs)
        for index, batch in enumerate(rows.batches(CALIBRATION_BATCH)):
            if most is not None and index * CALIBRATION_BATCH >= most:
                break
            labels = {} if batch.labels is None else {"/labels": batch.labels}
            save_arrays(self.place / f"{part}-{index:04}.npz", {**batch.inputs, **labels})

    def _ours(self) -> tuple[dict[str, Any], Model | None]:
        """`mlpack optimize --int8` from nothing: what it told, and the model where there is one."""
        from mlpack.api.lookup import artifact, intact_model

        store = self.place / "artifacts"
        words = ["optimize", *record.sample(self.name), "--int8", "--max-drop", LIMIT, "--store", str(store)]
        ended = record.mlpack_json(words, self.place / "own-cache")
        told: dict[str, Any] = {"exit_code": ended.code, "seconds": round(ended.seconds, 1), "error": ended.error}
        if "model" not in ended.document:
            return told, None
        stages = record.finished_stages(self.place / "own-cache")
        told |= self._first(words)
        told["peak_mb"] = round(max(each["peak_rss_bytes"] for each in stages if each["stage"] == "quantize") / 1e6)
        told["share"] = ended.document["model"]["numerics_share"]
        told["runs_as"] = next(each["label"] for each in ended.document["candidates"] if each["chosen"])
        return told, intact_model(artifact(ended.document["name"], store))

    def _static(self) -> tuple[dict[str, Any], Model]:
        """The static Q/DQ path of mlpack alone, on OpenVINO."""
        from mlpack.engine.run import run
        from mlpack.stages.compile import Compile
        from mlpack.stages.quantize import Quantize

        stage = Quantize(numerics="int8", method="static", operators="weighted", samples=SAMPLES)
        made = run(stage, self.graph, self.context)
        told = {"seconds": round(made.seconds, 1), "peak_mb": round(made.peak_rss_bytes / 1e6)}
        return told, run(Compile(backend="openvino"), made.model, self.context).model

    def _first(self, words: list[str]) -> dict[str, float]:
        """Of a command that ends with its first candidate inside the limit: its seconds; none where it found none.

        `confirmed_s` are those from the simplified graph, which others begin with, to the score on the confirming rows.
        """
        name = ["--name", "first", "--time-limit", "1s"]
        cache = self.place / "first-cache"
        ended = record.mlpack_json([*words, *name, *record.QUICK], cache)
        if "model" not in ended.document:
            return {}
        stages = record.finished_stages(cache)
        began = next(each["ended"] for each in stages if each["stage"] == "simplify")
        confirmed = [each["ended"] for each in stages if each["options"].get("part") == "confirming"]
        return {"first_s": round(ended.seconds, 1), "confirmed_s": round(confirmed[-1] - began, 1)}

    def _made(self, tool: str, python: str) -> dict[str, Any]:
        """What one tool made, in a process of its own: `file`, `seconds`, `peak_mb`; or the `error`."""
        job = {
            "tool": tool, "graph": str(self.graph.entry_path), "place": str(self.place), "limit": LIMIT,
            "metric": self.metric, "output": self.output, "higher": self.judge.metric.higher_is_better,
            "transformer": self.name in TRANSFORMERS,
            "inputs": [each.name for each in self.graph.inputs],
        }  # fmt: skip
        # Their environments have no mlpack, whose metrics a search is to go by.
        environment = {**os.environ, "PYTHONPATH": str(record.ROOT), "OLIVE_DISABLE_TELEMETRY": "1"}
        words = [python, str(WORKER), json.dumps(job)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:300]}
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))

    def _model(self, file: Path, backend: str) -> Model:
        form = "onnx" if file.suffix == ".onnx" else "openvino"
        found = self.graph.model_copy(
            update={"path": file.parent, "entry": file.name, "format": form, "numerics": "int8", "backend": backend}
        )
        options = found.backend_options.model_copy(update={"threads": self.context.threads})
        return found.model_copy(update={"backend_options": options})

    def _accuracy(self, model: Model) -> dict[str, Any]:
        """Of a model on the confirming rows, beside the original."""
        from mlpack.errors import MlpackError

        try:
            done = self.judge.score(model, "confirming")
        except MlpackError as error:
            return {"error": error.message}
        if done.report.metrics["nonfinite"]:
            return {"error": f"NaN on {done.report.metrics['nonfinite']} samples"}
        found = self.judge.compare(self.judge.original("confirming"), done)
        return found.model_dump(include={"baseline", "optimized", "drop", "drop_ci90", "verdict", "samples", "limit"})

    def _cosine(self, model: Model) -> float:
        """Between the first output's answers and those of the float graph, the mean over the first confirming rows."""
        from mlpack.backends import BACKENDS
        from mlpack.datasets.ref import open_part

        assert self.context.data is not None
        assert model.backend is not None
        target, found = self.context.target, []
        float32 = BackendOptions(threads=self.context.threads)
        with (
            BACKENDS["onnxruntime"].open(self.graph, target, float32) as true,
            BACKENDS[model.backend].open(model, target, model.backend_options) as made,
        ):
            for batch in open_part(self.context.data, "confirming", self.graph.inputs).batches(CALIBRATION_BATCH):
                one, two = (next(iter(runner(batch.inputs).values())) for runner in (true, made))
                one, two = (array.reshape(len(array), -1).astype(np.float64) for array in (one, two))
                norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
                found.append((one * two).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny))
                if len(found) * CALIBRATION_BATCH >= COSINES:
                    break
        return float(np.concatenate(found).mean())

    def _speeds(self, models: dict[str, Model]) -> dict[str, Any]:
        """Of all that can be run, over the original, by batch size: the median and its interval."""
        from mlpack.engine.run import run
        from mlpack.engine.validate import options_of

        step = self.recipe.latency.model_copy(update={"options": {**self.recipe.latency.options, "components": False}})
        done = run(options_of(step), self.baseline, self.context, rivals=models, label="timing all in turns")
        speeds: dict[str, Any] = {}
        for line in done.report.tables["latency"]:
            if line["contender"] in models:
                # The table says how many times as fast the first contender, here the original, is.
                ratio, ends = line["speedup_over"], line["speedup_over_ci95"]
                speeds.setdefault(line["contender"], {})[str(line["batch"])] = {
                    "times": 1 / ratio, "ci95": [1 / ends[1], 1 / ends[0]] if ends else None, "p50_ms": line["p50"],
                }  # fmt: skip
        return speeds


if __name__ == "__main__":
    sys.exit(main())
