"""How much faster than PyTorch eager each sample model comes out, and at what price, for auto and for --int8.

Every run starts from nothing: a cache and a store of its own. Speeds are those of the run's own final A/B: the
winner and the original in turns, fresh processes, the same threads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import record
import tables

MODELS = (
    "tiny-mlp", "digits-resnet", "digits-pairs", "digit-lines", "words-gru", "emoji-efficientnet", "reviews-minilm",
)  # fmt: skip
ASKED = {"auto": [], "int8": ["--int8"]}
# 0 published, 5 refused with a reason, 6 published as a candidate: all of them are results.
RESULTS = {0, 5, 6}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    parser.add_argument("--asked", nargs="+", default=list(ASKED), choices=list(ASKED))
    parser.add_argument("--quick", action="store_true", help="short timing runs: is the script itself all right?")
    given = parser.parse_args()
    before = record.read("speed")
    # Short timing runs and real ones do not stand in one table.
    kept = before["runs"] if before is not None and before["quick"] == given.quick else []
    runs = {(run["model"], run["asked"]): run for run in kept}
    for model in given.models:
        for asked in given.asked:
            print(f"{model}, {asked}", flush=True)
            runs[model, asked] = measured(model, asked, record.QUICK if given.quick else ())
            ordered = [runs[each] for each in product(MODELS, ASKED) if each in runs]
            record.write("speed", {"quick": given.quick, "runs": ordered})
            tables.render_all()
    print(tables.speed(record.read("speed") or {}))
    return 0 if all(run["exit_code"] in RESULTS for run in runs.values()) else 1


def measured(model: str, asked: str, extra: tuple[str, ...]) -> dict[str, Any]:
    """One run from nothing; what it published, or why it published nothing."""
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        place = Path(name)
        words = ["optimize", *record.sample(model), *ASKED[asked], "--store", str(place / "artifacts"), *extra]
        ended = record.mlpack_json(words, place / "cache")
    return {"model": model, "asked": asked, **outcome(ended)}


def outcome(ended: record.Ended) -> dict[str, Any]:
    """What an optimize run found out, in the words of its own document."""
    told = ended.document
    found: dict[str, Any] = {"exit_code": ended.code, "wall_s": round(ended.seconds, 1), "error": ended.error}
    if "accuracy" not in told:
        return found | {"hint": told["error"]["hint"]}
    model = told["model"]
    made = model["quantization"]
    return found | {
        "status": told["status"],
        "accuracy": told["accuracy"],
        "latency": told["latency"],
        "numerics": model["numerics"],
        "method": made["method"] if made else None,
        "numerics_share": model["numerics_share"],
        "backend": model["backend"],
        "size_bytes": model["size_bytes"],
        "baseline": told["baseline"],
        "candidates": told["candidates"],
    }


if __name__ == "__main__":
    sys.exit(main())
