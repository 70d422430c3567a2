"""What `optimize` chose beside every single backend by hand and the int8 of others: speed and error, in turns.

The contenders by hand are what a user could do with one tool and no search: each backend on the float model, OpenVINO
in bfloat16, onnxruntime's and NNCF's quantizers with their documented settings, Olive's search. All that can be opened
is timed in one run, mlpack's choice against each, and compared with the float model's answers on rows that nothing has
seen. ResNet-18 and BERT-base have random weights: only the error is told of them. `--nncf` and `--olive` as in int8.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
import tables
from int8 import ENVIRONMENTS, SAMPLES, TOOLS, Bench
from int8_worker import CALIBRATION_BATCH

if TYPE_CHECKING:
    from mlpack.core.model import Model

RANDOM = ("resnet-18", "bert-base")
MODELS = (
    "tiny-mlp", "digits-resnet", "digits-pairs", "digit-lines", "words-gru", "emoji-efficientnet", "reviews-minilm",
    *RANDOM,
)  # fmt: skip
# "The interval's better end": mlpack's choice may be slower than the best by hand by so much.
MOST_SLOWER = 1.02
LIMIT = "1%"
EAGER = "torch eager"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    for word, title in ENVIRONMENTS.items():
        parser.add_argument(f"--{word}", metavar="PYTHON", help=f"the interpreter of an environment with {title}")
    parser.add_argument("--quick", action="store_true", help="short timing runs: is the script itself all right?")
    given = parser.parse_args()
    pythons = {word: getattr(given, word) for word in ENVIRONMENTS}
    before = record.read("backends")
    kept = before["models"] if before is not None and before["quick"] == given.quick else []
    rows = {row["model"]: row for row in kept}
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="backends-") as folder:
            rows[name] = Contest(name, Path(folder), pythons, record.QUICK if given.quick else ()).row()
        ordered = [rows[model] for model in MODELS if model in rows]
        record.write("backends", {"quick": given.quick, "most_slower": MOST_SLOWER, "models": ordered})
        tables.render_all()
    print(tables.backends(record.read("backends") or {}))
    return 0 if all(slowest(rows[name]) <= MOST_SLOWER for name in given.models) else 1


def slowest(row: dict[str, Any]) -> float:
    """How many times mlpack's time the best by hand of equal or smaller error needs less, at the better end."""
    mine = row["contenders"]["mlpack"]["error"]
    return max(
        (
            1 / speed["mlpack_times"]["ci95"][1]
            for name, told in row["contenders"].items()
            if name != "mlpack" and told["error"] <= mine
            for speed in told["speed"].values()
            if speed["mlpack_times"]["ci95"]
        ),
        default=0.0,
    )


class Contest(Bench):
    """One model: what `optimize` makes of it, and what there is by hand."""

    def __init__(self, name: str, place: Path, pythons: dict[str, str | None], extra: tuple[str, ...]) -> None:
        super().__init__(name, place, pythons)
        self.extra = extra

    def row(self) -> dict[str, Any]:
        """All contenders."""
        self._write_rows("calibration", SAMPLES)
        self._write_rows("choosing", None)
        told, chosen = self._chosen()
        contenders, left_out = self._by_hand()
        contenders = {"mlpack": chosen, **contenders}
        row: dict[str, Any] = {"model": self.name, **told, "left_out": left_out, "contenders": {}}
        errors = self._errors(contenders)
        for name, problem in [(name, error) for name, error in errors.items() if isinstance(error, str)]:
            row["left_out"].append(f"{name}: {problem}")
            contenders.pop(name)
        speeds, refused = self._beside(contenders)
        row["left_out"] += [f"{name}: {problem}" for name, problem in refused.items()]
        for name, speed in speeds.items():
            row["contenders"][name] = {"error": errors[name], "speed": speed}
        print(json.dumps(row), flush=True)
        return row

    def _chosen(self) -> tuple[dict[str, Any], Model]:
        """What plain `optimize` publishes, from nothing."""
        from mlpack.api.lookup import artifact, intact_model

        store = self.place / "artifacts"
        limit = "none" if self.name in RANDOM else LIMIT
        words = ["optimize", *record.sample(self.name), "--max-drop", limit, "--store", str(store), *self.extra]
        ended = record.mlpack_json(words, self.place / "own-cache")
        if "model" not in ended.document:
            raise SystemExit(f"{self.name}: mlpack published nothing: {ended.error}")
        runs_as = next(each["label"] for each in ended.document["candidates"] if each["chosen"])
        told = {"limit": limit, "seconds": round(ended.seconds, 1), "runs_as": runs_as}
        return told, intact_model(artifact(ended.document["name"], store))

    def _by_hand(self) -> tuple[dict[str, Model], list[str]]:
        """Each backend on the float model, then each tool; and what could not be made, with the reason."""
        from mlpack.api.contenders import EVERY, of_model
        from mlpack.engine.run import run
        from mlpack.errors import MlpackError
        from mlpack.stages.compile import Compile

        found, left_out = of_model(self.recipe.source, EVERY, self.context)
        models = {f"{each.backend} {each.model.numerics}": each.model for each in found}
        models[EAGER] = models.pop(next(iter(models)))
        try:
            bf16 = Compile(backend="openvino", precision="bfloat16")
            models["openvino bf16"] = run(bf16, self.graph, self.context).model
        except MlpackError as error:
            left_out.append(f"openvino bf16: {error.message}")
        for tool, backend in TOOLS.items():
            python = self.pythons[tool.partition(" ")[0]]
            made = {"error": "no environment was named"} if python is None else self._made(tool, python)
            if "error" in made:
                left_out.append(f"{tool}: {made['error']}")
            else:
                models[tool] = self._model(Path(made["file"]), backend)
        return models, left_out

    def _errors(self, models: dict[str, Model]) -> dict[str, float | str]:
        """Relative L2 distance of the first output from the eager one's on confirming rows; or why there is none."""
        from mlpack.backends import BACKENDS
        from mlpack.datasets.ref import open_part
        from mlpack.errors import MlpackError

        assert self.context.data is not None
        rows = open_part(self.context.data, "confirming", self.graph.inputs)
        batches = [batch.inputs for batch, _ in zip(rows.batches(CALIBRATION_BATCH), range(8), strict=False)]
        answers: dict[str, np.ndarray] = {}
        errors: dict[str, float | str] = {}
        for name, model in {EAGER: models[EAGER], **models}.items():
            assert model.backend is not None
            try:
                with BACKENDS[model.backend].open(model, self.context.target, model.backend_options) as runner:
                    told = [next(iter(runner(arrays).values())).ravel() for arrays in batches]
            except MlpackError as error:
                errors[name] = error.message
                continue
            answers[name] = np.concatenate(told).astype(np.float64)
            distance = np.linalg.norm(answers[name] - answers[EAGER]) / np.linalg.norm(answers[EAGER])
            errors[name] = float(distance)
        return errors

    def _beside(self, models: dict[str, Model]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """By contender and batch size: the median in ms, and how many times as fast mlpack's choice is.

        Then why others cannot be timed.
        """
        from mlpack.engine.run import run
        from mlpack.engine.validate import options_of

        step = self.recipe.latency.model_copy(
            update={"options": {**self.recipe.latency.options, "components": False, "needed": "first"}}
        )
        if self.extra:
            step = step.model_copy(update={"options": {**step.options, "launches": 2, "seconds": 0.05}})
        rivals = {name: model for name, model in models.items() if name != "mlpack"}
        done = run(options_of(step), models["mlpack"], self.context, rivals=rivals, label="timing all in turns")
        speeds: dict[str, dict[str, Any]] = {}
        for line in done.report.tables["latency"]:
            name = line["contender"] if line["contender"] in rivals else "mlpack"
            speeds.setdefault(name, {})[str(line["batch"])] = {
                "p50_ms": line["p50"],
                "mlpack_times": {"times": line.get("speedup_over"), "ci95": line.get("speedup_over_ci95")},
            }
        return speeds, done.report.metrics["refused"]


if __name__ == "__main__":
    sys.exit(main())
