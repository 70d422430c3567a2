"""What mlpack costs beside a bare script that does the same work in one process, and what an unchanged run costs.

The first run's records say what was done: which quantizations, on which backends, scored on which rows at which
batch sizes. The bare script is told exactly that and does it with torch, onnxruntime and openvino alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import record
import tables

from mlpack.core.arrays import save_arrays
from mlpack.core.targets import load_target
from mlpack.core.threads import usable_threads
from mlpack.datasets.split import Split
from mlpack.quantization.rules import rules_for

if TYPE_CHECKING:
    from mlpack.core.dataset import Part

MOST_RATIO = 1.3
UNCHANGED_LIMIT_S = 15.0
# Two exports of one model may round differently: a few answers of ten thousand, not more. A quantized model that has
# lost ten points and more answers by chance on many rows, and differs from run to run on OpenVINO.
SAME_SCORE = 0.005
SAME_WRECK = 0.05
WRECKED = 0.10
GOOD = {0, 6}
ORIGINAL = "original"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="reviews-minilm", help="a folder of sample_models/")
    parser.add_argument("--limit", default="1%")
    parser.add_argument("--repeats", type=int, default=1, help="of the pair; medians count")
    parser.add_argument("--quick", action="store_true", help="short timing runs: is the script itself all right?")
    given = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        for repeat in range(given.repeats):
            place = Path(name) / str(repeat)
            place.mkdir()
            pairs.append(_pair(given.model, given.limit, place, record.QUICK if given.quick else ()))
            print(json.dumps(pairs[-1], indent=1))
        command = _command(given.model, given.limit, place, record.QUICK if given.quick else ())
        again = record.mlpack_json(command, place / "cache")
    ratio = statistics.median(pair["mlpack_s"] / pair["bare_s"] for pair in pairs)
    result = {
        "model": given.model,
        "command": f"mlpack optimize {' '.join(record.sample(given.model))} --int8 --max-drop {given.limit}",
        "quick": given.quick,
        "ratio": round(ratio, 3),
        "ratio_limit": MOST_RATIO,
        "pairs": pairs,
        "unchanged_run": {
            "seconds": round(again.seconds, 2),
            "limit_s": UNCHANGED_LIMIT_S,
            "unchanged": again.document.get("unchanged", False),
            "exit_code": again.code,
            "error": again.error,
        },
    }
    record.write("overhead", result)
    tables.render_all()
    print(tables.overhead(record.read("overhead") or {}))
    same = all(_same(score, pair["scores"]) for pair in pairs for score in pair["scores"])
    if not same:
        print("the bare script's scores differ: it did not do the same work")
    quick_enough = result["unchanged_run"]["unchanged"] and again.seconds < UNCHANGED_LIMIT_S
    return 0 if same and ratio <= MOST_RATIO and quick_enough else 1


def _command(model: str, limit: str, place: Path, extra: tuple[str, ...]) -> list[str]:
    store = ["--store", str(place / "artifacts")]
    return ["optimize", *record.sample(model), "--int8", "--max-drop", limit, *store, *extra]


def _pair(model: str, limit: str, place: Path, extra: tuple[str, ...]) -> dict[str, Any]:
    """One run of mlpack from nothing, then the bare script doing what it did."""
    cache = place / "cache"
    ended = record.mlpack_json(_command(model, limit, place, extra), cache)
    stages = record.finished_stages(cache)
    timing = sum(stage["seconds"] for stage in stages if record.is_timing(stage))
    spec = _spec(model, cache, stages, place)
    (place / "spec.json").write_text(json.dumps(spec))
    started = time.perf_counter()
    script = Path(__file__).with_name("bare_script.py")
    subprocess.run([sys.executable, str(script), str(place / "spec.json")], cwd=record.ROOT, check=True)
    bare = time.perf_counter() - started
    told = json.loads((place / "bare.json").read_text())
    scores = [
        {
            **{word: each[word] for word in ("flavour", "backend", "part", "batch")},
            "mlpack": each["expected"],
            "bare": scored,
            "mlpack_s": each["seconds"],
            "bare_s": seconds,
        }
        for each, scored, seconds in zip(spec["evaluate"], told["scores"], told["took"], strict=True)
    ]
    by_stage: dict[str, float] = {}
    for stage in stages:
        by_stage[stage["stage"]] = by_stage.get(stage["stage"], 0.0) + stage["seconds"]
    return {
        "exit_code": ended.code,
        "error": ended.error,
        "finished": ended.code in GOOD,
        "wall_s": round(ended.seconds, 2),
        "timing_s": round(timing, 2),
        "mlpack_s": round(ended.seconds - timing, 2),
        "bare_s": round(bare, 2),
        "stage_s": {name: round(seconds, 2) for name, seconds in sorted(by_stage.items())},
        "outside_stages_s": round(ended.seconds - sum(by_stage.values()), 2),
        "bare_step_s": told["seconds"],
        "quantizations": len(spec["quantize"]),
        "evaluations": len(spec["evaluate"]),
        "scores": scores,
    }


def _same(score: dict[str, Any], scores: list[dict[str, Any]]) -> bool:
    """Whether both did the same work: their scores agree as far as two exports of one model can."""
    original = next(
        each["mlpack"] for each in scores if each["flavour"] in {ORIGINAL, "fp32"} and each["part"] == score["part"]
    )
    allowed = SAME_WRECK if score["mlpack"] < original - WRECKED else SAME_SCORE
    return bool(abs(score["mlpack"] - score["bare"]) <= allowed)


def _spec(model: str, cache: Path, stages: list[dict[str, Any]], place: Path) -> dict[str, Any]:
    """The work that was done, from the records of the stages that did it; everything by name and number."""
    rows = Split.load(next((cache / "splits").glob("*.npz")))
    parts: tuple[Part, ...] = ("calibration", "choosing", "confirming")
    save_arrays(place / "rows.npz", {part: rows.rows(part) for part in parts})
    rules = rules_for(load_target("cpu").rules)
    quantized, opened, checks = (
        [stage for stage in stages if stage["stage"] == name] for name in ("quantize", "compile", "check_accuracy")
    )
    return {
        "code": f"sample_models/{model}/model.py",
        "data": f"sample_models/{model}/eval.npz",
        "rows": str(place / "rows.npz"),
        "folder": str(place),
        "threads": usable_threads(),
        "rules": rules.model_dump(mode="json"),
        "quantize": [
            {"flavour": _flavour(stage["model"]), "infinite": _infinite(stage), **stage["options"]}
            for stage in quantized
        ],
        "open": [_on(stage["model"]) for stage in opened],
        "evaluate": [
            {
                **_on(stage["model"]),
                "part": stage["options"]["part"],
                "batch": stage["options"]["batch"],
                "expected": stage["report"]["metrics"]["value"],
                "seconds": stage["seconds"],
            }
            for stage in checks
        ],
    }


def _infinite(stage: dict[str, Any]) -> list[str]:
    """The tensors with values that stand for infinity: what touches them was left in float."""
    ranges = stage["report"]["tables"].get("found_ranges", [])
    return [each["tensor"] for each in ranges if each["infinite"]]


def _flavour(model: dict[str, Any]) -> str:
    made = model["quantization"]
    if model["format"] == "torch":
        return ORIGINAL
    return "-".join([model["numerics"], *((made["method"], made["details"]["operators"]) if made else ())])


def _on(model: dict[str, Any]) -> dict[str, str]:
    return {"flavour": _flavour(model), "backend": model["backend"]}


if __name__ == "__main__":
    sys.exit(main())
