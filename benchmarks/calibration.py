"""Ranges, time and memory of calibration beside onnxruntime's, NNCF's and ModelOpt's, each run in a process of its own.

The same prepared graph and the same batches go to all of them. NNCF and ModelOpt live in environments of their own:
`--nncf PYTHON` names the interpreter (pip install nncf onnx openvino), and `--modelopt PYTHON` (pip install
nvidia-modelopt onnx-graphsurgeon polygraphy lief cppimport onnx onnxruntime). Seconds of both are of a whole
quantization.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opening
import record
import tables

if TYPE_CHECKING:
    import numpy as np

MODELS = (
    "tiny-mlp", "digits-resnet", "digits-pairs", "digit-lines", "words-gru", "emoji-efficientnet", "reviews-minilm",
)  # fmt: skip
METHODS = ("minmax", "percentile", "entropy")
# What ModelOpt calls max and entropy; it has no percentile.
MODELOPT = ("minmax", "entropy")
SAMPLES = (16, 64, 256, 1024)
# onnxruntime keeps every activation: more of it than this machine holds is not asked for.
MOST_PEER_SAMPLES = 256
BATCH = 16
CUT = 99.987
WORKER = Path(__file__).with_name("calibration_worker.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--samples", nargs="+", type=int, default=list(SAMPLES))
    parser.add_argument("--nncf", metavar="PYTHON", help="the interpreter of an environment with NNCF")
    parser.add_argument("--modelopt", metavar="PYTHON", help="the interpreter of an environment with ModelOpt")
    given = parser.parse_args()
    kept = (record.read("calibration") or {"rows": []})["rows"]
    rows = [row for row in kept if row["model"] not in given.models]
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        for name in given.models:
            place = Path(folder) / name
            place.mkdir()
            graph = prepared(name, place, max(given.samples))
            for samples in given.samples:
                rows += compared(name, graph, place, samples, given)
                record.write("calibration", {"batch": BATCH, "percentile": CUT, "rows": rows})
                tables.render_all()
    print(tables.calibration(record.read("calibration") or {}))
    return 0


def prepared(name: str, place: Path, samples: int) -> Path:
    """The simplified graph of a sample model as the quantizer gets it; beside it the batches, as files."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from mlpack.core.arrays import save_arrays
    from mlpack.datasets.ref import open_part

    found = opening.opened(record.sample(name), place)
    simplified = found.simplified()
    graph = place / "prepared.onnx"
    quant_pre_process(simplified.entry_path, graph, skip_symbolic_shape=True)
    assert found.context.data is not None
    whole = open_part(found.context.data.model_copy(update={"split": None}), "calibration", simplified.inputs)
    batches: list[dict[str, np.ndarray]] = []
    while sum(len(next(iter(batch.values()))) for batch in batches) < samples:
        # Small data goes round again.
        batches += [dict(batch.inputs) for batch in whole.batches(BATCH) if len(batch) == BATCH]
    for index, batch in enumerate(batches[: math.ceil(samples / BATCH)]):
        save_arrays(place / f"batch-{index:04}.npz", batch)
    return graph


def compared(name: str, graph: Path, place: Path, samples: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every tool and method on so many samples."""
    common = {"graph": str(graph), "batches": str(place), "count": samples // BATCH, "cut": CUT}
    plain = worker({**common, "tool": "plain"})
    found = []
    for method in given.methods:
        ours = worker({**common, "tool": "mlpack", "method": method})
        row: dict[str, Any] = {
            "model": name, "method": method, "samples": samples, "plain_s": plain["seconds"],
            "mlpack": {key: ours[key] for key in ("seconds", "peak_mb", "tensors")},
        }  # fmt: skip
        if samples <= MOST_PEER_SAMPLES:
            theirs = worker({**common, "tool": "onnxruntime", "method": method})
            row["onnxruntime"] = {key: theirs.get(key) for key in ("seconds", "peak_mb", "error")}
            if "ranges" in theirs:
                row["beyond_a_bin"] = beyond_a_bin(ours["ranges"], theirs["ranges"], ours["ends"], ours["infinite"])
        found.append(row)
        print(json.dumps(row), flush=True)
    if samples > MOST_PEER_SAMPLES:
        return found
    others = [("nncf", "default", given.nncf), *(("modelopt", method, given.modelopt) for method in MODELOPT)]
    for tool, method, python in others:
        if python is not None:
            told = worker({**common, "tool": tool, "method": method}, python)
            about = {"model": name, "method": f"{tool} {method}", "samples": samples, "plain_s": plain["seconds"]}
            found.append({**about, "peer": told})
            print(json.dumps(found[-1]), flush=True)
    return found


def beyond_a_bin(ours: Any, theirs: Any, ends: Any, infinite: list[str]) -> list[str]:
    """The tensors whose ranges differ by more than a bin of onnxruntime's; it has none for those with infinities."""
    far = []
    for tensor, (low, high) in theirs.items():
        width = 2 * max(map(abs, ends[tensor])) / 2048
        distance = max(abs(ours[tensor][0] - low), abs(ours[tensor][1] - high))
        if distance > 1.01 * width and tensor not in infinite:
            far.append(tensor)
    return far


def worker(job: dict[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """One calibration in a process of its own; what it printed last."""
    done = subprocess.run([python, str(WORKER), json.dumps(job)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
