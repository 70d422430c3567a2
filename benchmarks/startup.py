"""How long `mlpack --help` and `--version` take as whole processes, and which libraries they import."""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from typing import Any

import record
import tables

LIMIT_S = 0.35
HEAVY = ("torch", "onnx", "onnxruntime", "transformers", "openvino", "numpy", "scipy")
FORBIDDEN = ("torch", "onnx", "onnxruntime", "transformers")
COMMANDS = {
    "mlpack --help": [str(record.MLPACK), "--help"],
    "mlpack --version": [str(record.MLPACK), "--version"],
    "python -c pass": [sys.executable, "-c", "pass"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="whole processes of each, in turns")
    runs = parser.parse_args().runs
    taken: dict[str, list[float]] = {label: [] for label in COMMANDS}
    for command in COMMANDS.values():
        _timed(command)  # the first one compiles and reads from the disk
    for _ in range(runs):
        for label, command in COMMANDS.items():
            taken[label].append(_timed(command))
    rows: list[dict[str, Any]] = [
        {
            "command": label,
            "median_s": round(statistics.median(seconds), 4),
            "worst_s": round(max(seconds), 4),
            "imported": _imported(COMMANDS[label]),
        }
        for label, seconds in taken.items()
    ]
    record.write("startup", {"runs": runs, "limit_s": LIMIT_S, "commands": rows})
    tables.render_all()
    print(tables.startup(record.read("startup") or {}))
    ours = [row for row in rows if row["command"].startswith("mlpack")]
    late = [row["command"] for row in ours if row["median_s"] > LIMIT_S]
    heavy = [row["command"] for row in ours if set(row["imported"]) & set(FORBIDDEN)]
    for label in late:
        print(f"over {LIMIT_S} s: {label}")
    for label in heavy:
        print(f"imports what it must not: {label}")
    return 1 if late or heavy else 0


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _imported(command: list[str]) -> list[str]:
    """Which of the heavy libraries a command imports, told by the interpreter itself."""
    words = command if command[0] == sys.executable else [sys.executable, *command]
    traced = [words[0], "-X", "importtime", *words[1:]]
    told = subprocess.run(traced, capture_output=True, text=True, check=True).stderr
    names = set(re.findall(r"^import time:.*\|\s*([\w.]+)$", told, re.MULTILINE))
    return [name for name in HEAVY if name in names]


if __name__ == "__main__":
    sys.exit(main())
