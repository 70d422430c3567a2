"""`mlpack bench --server` beside perf_analyzer: one Triton, the same model, the same number of clients, in turns."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import serving_load_peers as peers

import mlpack
from mlpack.core.arrays import save_arrays
from mlpack.core.runtime import ServeOptions
from mlpack.errors import MlpackError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    import serving_load_ours as ours

# Protocol, rows in a request, clients.
LOADS = (("http", 1, 8), ("http", 8, 1), ("http", 8, 4), ("grpc", 8, 1), ("grpc", 8, 4))
MOST_ROWS = 8
MOST_ROUNDS = 2
_MS = 1e-3
_PARTS = {"queue": "Server Queue", "compute": "Server Compute Infer"}


def measure(trial: ours.Trial, homes: Path) -> dict[str, Any]:
    """Throughput, P50 and the server's own split as each of the two tells them, by protocol and clients."""
    try:
        command = peers.perf_analyzer(homes)
    except FileNotFoundError as error:
        return {"why": str(error)}
    folder = trial.package("triton", MOST_ROWS)
    data = trial.place / "perf.json"
    rows = trial.rows()
    flat = [{name: array.ravel().tolist() for name, array in row.items()} for row in rows]
    data.write_text(json.dumps({"data": flat}))
    save_arrays(trial.place / "rows.npz", {name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    found: list[dict[str, Any]] = []
    options = ServeOptions(python=homes / "triton" / "bin" / "python")
    try:
        with RUNTIMES["triton"].serve(folder, options, trial.place / "triton.log") as server:
            for protocol, batch, clients in LOADS:
                pairs = []
                address = server.urls[protocol].partition("://")[2]
                words = [*command, "-m", trial.model, "-u", address, "-i", protocol, "-b", str(batch),
                         f"--concurrency-range={clients}", "--input-data", str(data)]  # fmt: skip
                for _ in range(min(trial.rounds, MOST_ROUNDS)):
                    told = _bench(server.urls[protocol], trial, batch, clients)
                    pairs.append({"ours": told, "perf": _perf(words, trial)})
                found.append({"protocol": protocol, "batch": batch, "clients": clients, "pairs": pairs})
                print(json.dumps(found[-1]), flush=True)
            notes = list(server.notes)
    except (MlpackError, OSError) as error:
        return {"why": str(getattr(error, "message", error)).replace(str(trial.place), "")}
    return {"rows": found, "notes": notes, "most_rows": MOST_ROWS}


def _bench(url: str, trial: ours.Trial, batch: int, clients: int) -> dict[str, Any]:
    done = mlpack.bench_server(
        url, clients=(clients,), seconds=trial.seconds, batch=batch, data=trial.place / "rows.npz"
    )
    (result,) = done.loads
    parts = {part.name: part.mean_ms for part in result.split.parts}
    return {
        "throughput": batch * result.load.throughput, "p50_ms": result.load.quantile("p50").ms,
        **{f"{name}_ms": parts.get(name) for name in _PARTS},
    }  # fmt: skip


def _perf(command: list[str], trial: ours.Trial) -> dict[str, Any]:
    """Three windows, together as long as ours; how far they agree is seen from the rounds."""
    out = trial.place / "perf.csv"
    words = [*command, f"--measurement-interval={round(trial.seconds * 1e3 / 3)}",
             "--stability-percentage=100", "-f", str(out)]  # fmt: skip
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if not out.is_file():
        raise OSError(f"perf_analyzer: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    told = out.read_text()
    out.unlink()
    (row,) = csv.DictReader(told.splitlines())
    return {
        "throughput": float(row["Inferences/Second"]), "p50_ms": float(row["p50 latency"]) * _MS,
        **{f"{name}_ms": float(row[column]) * _MS for name, column in _PARTS.items()},
    }  # fmt: skip
