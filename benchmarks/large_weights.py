"""A model of more than 2 GB through the whole job: what each stage takes in memory and time, and what comes out.

A protobuf message ends at 2 GB, so that every stage has to keep the weights in a file beside the graph. The weights
are drawn from a seed; what is judged is agreement with the original, as there is nothing such a model would know.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record
import speed
import tables

WIDTH = 8192
CLASSES = 16
ROWS = 120
FACTORY = f'''"""Wide layers, each on top of what went before."""

import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self, layers):
        super().__init__()
        skip = nn.utils.skip_init
        self.layers = nn.ModuleList(skip(nn.Linear, {WIDTH}, {WIDTH}) for _ in range(layers))
        self.head = skip(nn.Linear, {WIDTH}, {CLASSES})

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)


def network():
    return Wide(LAYERS)
'''


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of float32 weights")
    parser.add_argument("--asked", nargs="+", default=["int8"], choices=["int8", "bf16"])
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-weights-") as name:
        place = given.keep or Path(name)
        place.mkdir(exist_ok=True)
        size = write_model(place, given.gigabytes)
        runs = [measured(place, asked) for asked in given.asked]
    record.write("large_weights", {"weights_bytes": size, "runs": runs})
    tables.render_all()
    print(tables.large_weights(record.read("large_weights") or {}))
    return 0 if all(run["exit_code"] in speed.RESULTS for run in runs) else 1


def write_model(place: Path, gigabytes: float) -> int:
    """Write factory, weights and rows; the size of the weights in bytes."""
    import torch
    from safetensors.torch import save_file

    layers = max(1, round(gigabytes * 1e9 / (4 * WIDTH * WIDTH)))
    (place / "model.py").write_text(FACTORY.replace("LAYERS", str(layers)), encoding="utf-8")
    drawn = torch.Generator().manual_seed(0)
    weights = {}
    for at in range(layers):
        weights[f"layers.{at}.weight"] = torch.randn(WIDTH, WIDTH, generator=drawn).mul_((1 / WIDTH) ** 0.5)
        weights[f"layers.{at}.bias"] = torch.zeros(WIDTH)
    weights["head.weight"] = torch.randn(CLASSES, WIDTH, generator=drawn).mul_((1 / WIDTH) ** 0.5)
    weights["head.bias"] = torch.zeros(CLASSES)
    save_file(weights, place / "weights.safetensors")
    np.savez(place / "rows.npz", x=np.random.default_rng(0).standard_normal((ROWS, WIDTH), np.float32))
    return (place / "weights.safetensors").stat().st_size


def measured(place: Path, asked: str) -> dict[str, Any]:
    """One run from nothing: what came of it, and what every stage took."""
    cache = place / f"cache-{asked}"
    words = [
        "optimize", str(place / "weights.safetensors"), "--factory", f"{place / 'model.py'}:network",
        "--data", str(place / "rows.npz"), f"--{asked}", "--name", "wide", "--store", str(place / f"store-{asked}"),
        "--set", "quantize.method=dynamic" if asked == "int8" else "quantize.method=auto",
        "--set", "profile_latency.launches=2", "--set", "profile_latency.seconds=2",
        "--set", "profile_latency.batches=[1]", "--set", "profile_latency.components=false",
    ]  # fmt: skip
    ended = record.mlpack_json(words, cache)
    stages = [
        {
            "stage": stage["stage"],
            "what": _what(stage),
            "seconds": round(stage["seconds"], 1),
            "peak_rss_bytes": stage["peak_rss_bytes"],
            "size_bytes": sum(file.stat().st_size for file in Path(stage["folder"]).rglob("*") if file.is_file()),
        }
        for stage in record.finished_stages(cache)
    ]
    print(json.dumps(stages, indent=1))
    return {"asked": asked, **speed.outcome(ended), "stages": stages}


def _what(stage: dict[str, Any]) -> str:
    """What tells this run of a stage from its others, in a word or two."""
    options = stage["options"]
    if stage["stage"] == "quantize":
        return f"{options['numerics']} {options['method']}"
    if stage["stage"] == "compile":
        return str(options["backend"])
    if stage["stage"] == "check_accuracy":
        return str(options["part"])
    return str(stage["report"]["metrics"].get("why", "")) if stage["stage"] == "simplify" else ""


if __name__ == "__main__":
    sys.exit(main())
