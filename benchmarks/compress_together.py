"""Pruned, in int8, and both: is a model that was pruned and quantized faster and smaller than either alone?

Four `mlpack optimize` runs of a model's pruned recipe under one limit: without its pruning, as it is, with int8
in place of pruning, and with int8 after it. Then `mlpack bench` times the four artifacts and the original in turns,
each on the backend that its own run chose. The runs share a cache, so that both pruned ones are the same weights.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
import tables
import yaml

MODELS = {"digits-resnet": "1pt", "reviews-minilm": "2pt", "reviews-bert": "2pt"}
"""By sample model, the largest drop for all of its ways."""
LIKE = {"reviews-bert": "reviews-minilm"}
"""Models without a pruned recipe of their own, and whose steps, rows and tokens they share."""
SMALLER = ("prune", "distill")
INT8 = {"quantize": {"numerics": "int8"}}
WAYS = ("exported", "pruned", "int8", "pruned and int8")
LAUNCHES = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    parser.add_argument("--quick", action="store_true", help="short timing runs: is the script itself all right?")
    given = parser.parse_args()
    kept = {row["model"]: row for row in (record.read("compress_together") or {"rows": []})["rows"]}
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="compress-together-") as folder:
            kept[name] = measured(name, Path(folder), quick=given.quick)
        rows = [kept[each] for each in MODELS if each in kept]
        record.write("compress_together", {"quick": given.quick, "rows": rows})
        tables.render_all()
    return 0


def measured(name: str, place: Path, *, quick: bool) -> dict[str, Any]:
    """What each way gave by itself, and the times of all in turns."""
    runs = {way: optimized(name, way, place, quick=quick) for way in WAYS}
    model, *_ = record.sample(name)
    paths = [run.pop("path") for run in runs.values()]
    launches = ("--launches", "2", "--seconds", "0.05") if quick else ("--launches", str(LAUNCHES))
    timed = record.mlpack_json(["bench", *reversed(paths), model, *launches], place / "cache")
    if timed.code:
        raise SystemExit(timed.error)
    contenders = dict(zip((*reversed(runs), "original"), timed.document["contenders"], strict=True))
    rows = {way: times(told) for way, told in contenders.items()}
    return {"model": name, "limit": MODELS[name], "runs": runs, "launches": timed.document["launches"], "timed": rows}


def optimized(name: str, way: str, place: Path, *, quick: bool) -> dict[str, Any]:
    """One run of the recipe as the way wants it."""
    told = written(name, way)
    file = place / f"{told['name']}.yaml"
    file.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    print(f"{name}, {way}", flush=True)
    extra = record.QUICK if quick else ()
    ended = record.mlpack_json(["optimize", str(file), "--store", str(place / "artifacts"), *extra], place / "cache")
    if "accuracy" not in ended.document:
        raise SystemExit(ended.error)
    found = ended.document
    return {
        "path": found["path"],
        "wall_s": round(ended.seconds, 1),
        "exit_code": ended.code,
        "accuracy": found["accuracy"],
        "numerics": found["model"]["numerics"],
        "backend": found["model"]["backend"],
        "size_bytes": found["model"]["size_bytes"],
        "size_before_bytes": found["baseline"]["size_bytes"],
    }


def written(name: str, way: str) -> dict[str, Any]:
    """The recipe of the pruned model, changed for one way."""
    file = record.ROOT / "recipes" / f"{LIKE.get(name, name)}-pruned-cpu.yaml"
    recipe: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    recipe["source"]["model"] = f"sample_models/{name}/model.py:model"
    recipe |= {"name": f"{name}-{way.replace(' ', '-')}", "limit": MODELS[name]}
    if "int8" in way:
        # Before the last step, which compiles.
        recipe["steps"].insert(-1, copy.deepcopy(INT8))
        recipe["promise"] = "int8"
    if "pruned" not in way:
        recipe["steps"] = [step for step in recipe["steps"] if not any(each in step for each in SMALLER)]
    return recipe


def times(told: dict[str, Any]) -> dict[str, Any]:
    """By batch size: P50 in ms, and how many times as fast both together are."""
    return {
        str(row["batch"]): {"p50_ms": row["p50"], **together_over(row["speedup"], row["speedup_ci95"])}
        for row in told["latency"]
    }


def together_over(speedup: float | None, ends: list[float] | None) -> dict[str, Any]:
    """`bench` says how many times as fast as the first contender one is; here it is the other way round."""
    if speedup is None:
        return {}
    return {"together_over": 1 / speedup, "ci95": None if ends is None else [1 / ends[1], 1 / ends[0]]}


if __name__ == "__main__":
    sys.exit(main())
