"""Runs every shipped recipe from nothing and writes what it measured into recipes/README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
import speed
import tables
import yaml

FOLDER = record.ROOT / "recipes"


def main() -> int:
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=names, choices=names, help="others keep their rows")
    parser.add_argument("--quick", action="store_true", help="short timing runs: is the script itself all right?")
    given = parser.parse_args()
    kept = {run["recipe"]: run for run in (record.read("recipes") or {"runs": []})["runs"]}
    runs = []
    for name in given.recipes:
        print(name, flush=True)
        path = FOLDER / f"{name}.yaml"
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
            place = Path(folder)
            words = ["optimize", f"recipes/{path.name}", "--store", str(place / "artifacts")]
            ended = record.mlpack_json([*words, *(record.QUICK if given.quick else ())], place / "cache")
            took = made(ended.document)
        gate = {"limit": written.get("limit"), "promise": written.get("promise")}
        runs.append({"recipe": name, "target": written.get("target", "cpu"), **gate, **took, **speed.outcome(ended)})
        kept[name] = runs[-1]
        record.write("recipes", {"quick": given.quick, "runs": [kept[each] for each in names if each in kept]})
        tables.render_all()
    print(tables.recipes(record.read("recipes") or {}))
    return 0 if all(run["exit_code"] in speed.RESULTS for run in runs) else 1


def made(document: dict[str, Any]) -> dict[str, Any]:
    """The most that a stage held, and what pruning took away, from the artifact's own records."""
    if "path" not in document:
        return {}
    found: dict[str, Any] = {"peak_bytes": max(each["peak_rss_bytes"] or 0 for each in document["lineage"])}
    report = Path(document["path"]) / "reports" / "prune.json"
    if report.is_file():
        metrics = json.loads(report.read_text(encoding="utf-8"))["metrics"]
        found["pruned"] = {name: metrics[name] for name in ("flops_gone", "parameters_before", "parameters_after")}
    return found


if __name__ == "__main__":
    sys.exit(main())
