"""The FastAPI package under load, beside a bare loop, an ideal queue, other servers, and Triton's own load generator.

An artifact of the sample model reviews-minilm, bf16 on OpenVINO, one thread, is made once and kept: the int8 that keeps
its accuracy is dynamic, whose answers depend on batch mates, so that no request may share a run. Then, in turns:

ours    throughput at 32 clients beside the package's session in a bare loop with the best batch; P99 at 70% of that
        load beside a simulated ideal queue with the measured service times; goodput, refusals and memory at three times
        of it. The session is pinned to one core, the server's event loop and the client to the other one.
peers   TorchServe, BentoML, LitServe and MLServer serve the same file by the same session. Nothing is pinned.
triton  `mlpack bench --server` beside perf_analyzer on one Triton.

`serving_load_peers.py` makes what the last two need. A server that does not start stands in the table with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
import serving_load_others as others
import serving_load_ours as ours
import serving_load_triton as triton
import tables

import mlpack

MODEL = "reviews-minilm"
PLACE = record.ROOT / ".serving"
SECTIONS = ("ours", "peers", "triton")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--peers", type=Path, default=PLACE / "peers", help="environments of the other servers")
    parser.add_argument("--store", type=Path, default=PLACE / "artifacts", help="where the artifact is, or will be")
    parser.add_argument("--rounds", type=int, default=5, help="how often all take turns")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    given = parser.parse_args()
    assert len(os.sched_getaffinity(0)) > 1, "one core for the session, another one for the rest"
    store, homes = given.store.resolve(), given.peers.resolve()
    runs_as = artifact(store)
    found = record.read("serving_load") or {}
    found = {name: found[name] for name in SECTIONS if name in found}
    with tempfile.TemporaryDirectory(prefix="serving-load-") as folder:
        trial = ours.Trial(store, MODEL, Path(folder), given.rounds, given.seconds)
        if "ours" in given.only:
            found["ours"] = said(trial.measure())
        if "peers" in given.only:
            found["peers"] = said(others.measure(trial, homes))
        if "triton" in given.only:
            found["triton"] = said(triton.measure(trial, homes))
    quick = given.rounds < parser.get_default("rounds") or given.seconds < parser.get_default("seconds")
    record.write("serving_load", {"model": MODEL, "runs_as": runs_as, "quick": quick, **found})
    tables.render_all()
    print(tables.serving_load(record.read("serving_load") or {}))
    return 0


def artifact(store: Path) -> str:
    """What it runs as; it is made where it is not there yet."""
    path = store / MODEL / "1" / "artifact.json"
    if not path.is_file():
        print("making the artifact, once", flush=True)
        data = record.ROOT / "sample_models" / MODEL
        quick = [word for word in record.QUICK if word != "--set"]
        mlpack.optimize(f"{data}/model.py:model", data=data / "eval.npz", store=store, name=MODEL, numerics="bf16",
                        backend="openvino", threads=1, settings=quick)  # fmt: skip
    told = json.loads(path.read_text())
    assert not told["accuracy"]["batch_dependent"], "its requests may share no run: there is nothing to compare"
    model = told["model"]
    threads = model["backend_options"]["threads"]
    return f"{model['numerics']} on {model['backend']}, {threads} thread{'s' if threads > 1 else ''}"


def said(found: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(found, indent=1), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
