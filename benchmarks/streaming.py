"""Does memory stay the same however many images there are? The largest process of each command, by number of images."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import tables
from PIL import Image

COUNTS = (1_000, 5_000, 20_000)
MOST_GROWTH = 1.15
_SIDE = 128
_LOOK_S = 0.05
_MODEL = """
import torch

def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(16, 4),
    )
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    counts = parser.parse_args().counts
    with tempfile.TemporaryDirectory(prefix="streaming-") as folder:
        place = Path(folder)
        (place / "model.py").write_text(_MODEL)
        make_images(place / "all", max(counts))
        rows = [measured(place, count) for count in counts]
    found = {"side": _SIDE, "most_growth": MOST_GROWTH, "rows": rows}
    record.write("streaming", found)
    tables.render_all()
    print(tables.streaming(record.read("streaming") or {}))
    first, last = rows[0], rows[-1]
    grown = max(last[name]["peak_mb"] / first[name]["peak_mb"] for name in ("optimize", "predict"))
    return 0 if grown <= MOST_GROWTH else 1


def make_images(folder: Path, count: int) -> None:
    """Noise, no two alike, in four classes."""
    random = np.random.default_rng(0)
    for at in range(count):
        place = folder / f"class{at % 4}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (_SIDE // 4, _SIDE // 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((_SIDE, _SIDE)).save(place / f"{at:06}.jpg", quality=85)


def measured(place: Path, count: int) -> dict[str, Any]:
    """Both commands over the first `count` images, each from an empty cache."""
    chosen = place / f"images-{count}"
    for number, file in enumerate(sorted((place / "all").rglob("*.jpg"), key=lambda path: path.name)):
        if number == count:
            break
        target = chosen / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, target)
    name = f"images-{count}"
    optimize = [
        "optimize", "model.py:model", "--data", str(chosen), "--preprocess", "unit:64", "--name", name, "--no-limit",
        "--backend", "onnxruntime", *record.QUICK,
    ]  # fmt: skip
    done = {"images": count, "optimize": run(optimize, place, f"cache-{count}")}
    done["predict"] = run(
        ["predict", name, "--data", str(chosen), "--out", f"{name}.npz"], place, f"cache-{count}-predict"
    )
    print(done, flush=True)
    return done


def run(words: list[str], place: Path, cache: str) -> dict[str, float]:
    """Seconds of a command, and the peak resident memory of the largest of its processes."""
    started = time.perf_counter()
    environment = {**os.environ, "MLPACK_CACHE": str(place / cache), "MLPACK_STORE": str(place / "artifacts")}
    command = [str(record.MLPACK), *words, "--quiet"]
    with subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL) as process:
        largest = 0
        while process.poll() is None:
            largest = max(largest, _largest(f"MLPACK_CACHE={place / cache}\0"))
            time.sleep(_LOOK_S)
    assert process.returncode == 0, words
    return {"seconds": round(time.perf_counter() - started, 1), "peak_mb": round(largest / 1024, 1)}


def _largest(marked: str) -> int:
    """The highest peak (VmHWM, in KiB) among living processes with this in their environment, whoever started them."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            if marked in (folder / "environ").read_text(errors="replace"):
                told = re.search(r"VmHWM:\s+(\d+)", (folder / "status").read_text())
                found = max(found, int(told[1]) if told else 0)
    return found


if __name__ == "__main__":
    sys.exit(main())
