"""What onnxruntime's session options, and fused attention, change in what a call computes: CPU time of one thread.

Options that decide what a thread does are told apart by its CPU time, which other work on the machine hardly changes:
this is no timing, and a busy machine will do. In each round every option has a session of its own, in random order.
The graphs are those that a recipe makes: float32, and int8 by static Q/DQ of the weighted operators.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    Arrays = dict[str, np.ndarray]

MODELS = ("digits-resnet", "emoji-efficientnet", "reviews-minilm")
BATCHES = (1, 8)
PLAIN, AGAIN, FUSED = "as set", "as set, again", "attention fused"
# An attribute of the session options where there is no dot, else one of its configuration entries.
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    AGAIN: {},
    "no arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "no blocked layout": {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
    "denormals as zero": {"session.set_denormal_as_zero": "1"},
    FUSED: {},
}
SECONDS, FEWEST_CALLS = 0.1, 6
# Percentile of a session's calls: what shares the core makes some of them longer.
FAST = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="others keep their rows")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    rows = {key(row): row for row in (record.read("ort_options") or {"rows": []})["rows"]}
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="ort-options-") as folder:
            for numerics, files, inputs in graphs(name, Path(folder)):
                found = in_rounds(files, inputs, given.rounds)
                where = {"model": name, "numerics": numerics, "rounds": given.rounds}
                rows |= {key(row): row for row in compared(where, found)}
        ordered = sorted(rows.values(), key=lambda row: MODELS.index(row["model"]))
        record.write("ort_options", {"rows": ordered})
        tables.render_all()
    return 0


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is of."""
    return tuple(row[name] for name in ("model", "numerics", "option", "batch"))


def graphs(name: str, place: Path) -> Iterator[tuple[str, dict[str, str], Arrays]]:
    """A model's graph in each of its numerics with what is fused of it, by option, and rows to run it on."""
    from quantization_options import exported

    from mlpack.datasets.ref import open_part
    from mlpack.engine.run import run
    from mlpack.errors import StageFailed
    from mlpack.stages.quantize import Quantize
    from mlpack.stages.simplify import Simplify

    given, context = exported(name, place)
    graph = run(Simplify(), given, context).model
    assert context.data is not None
    rows = next(iter(open_part(context.data, "calibration", graph.inputs).batches(max(BATCHES)))).inputs
    files = {PLAIN: str(graph.entry_path)}
    try:
        files[FUSED] = str(run(Simplify(fusions="attention"), given, context).model.entry_path)
    except StageFailed as error:
        print(f"{name}: {error.message}", flush=True)
    yield "fp32", files, rows
    made = run(Quantize(numerics="int8", method="static", operators="weighted"), graph, context)
    yield "int8", {PLAIN: str(made.model.entry_path)}, rows


def in_rounds(files: dict[str, str], rows: Arrays, rounds: int) -> dict[str, list[dict[int, float]]]:
    """What each session of each option takes, CPU ms by batch size."""
    wanted = [option for option in OPTIONS if option != FUSED or FUSED in files]
    found: dict[str, list[dict[int, float]]] = {option: [] for option in wanted}
    order = random.Random(0)  # noqa: S311 - an order of turns
    for _ in range(rounds):
        for option in order.sample(wanted, len(wanted)):
            found[option].append(one_session(files.get(option, files[PLAIN]), rows, option))
    return found


def one_session(graph: str, rows: Arrays, option: str) -> dict[int, float]:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 4
    for name, value in OPTIONS[option].items():
        if "." in name:
            settings.add_session_config_entry(name, value)
        else:
            level = name == "graph_optimization_level"
            setattr(settings, name, getattr(ort.GraphOptimizationLevel, value) if level else value)
    session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    found = {}
    for batch in BATCHES:
        feeds = {name: np.resize(array, (batch, *array.shape[1:])) for name, array in rows.items()}
        for _ in range(3):
            session.run(None, feeds)
        taken: list[float] = []
        end = time.perf_counter() + SECONDS
        while len(taken) < FEWEST_CALLS or time.perf_counter() < end:
            before = time.process_time_ns()
            session.run(None, feeds)
            taken.append((time.process_time_ns() - before) / 1e6)
        found[batch] = float(np.percentile(taken, FAST))
    return found


def compared(where: dict[str, Any], found: dict[str, list[dict[int, float]]]) -> list[dict[str, Any]]:
    """A row for each option and batch size: how many times as fast it is."""
    from mlpack.measure.launches import speedup

    rows = []
    for option, sessions in found.items():
        for batch in BATCHES:
            mine, plain = ([np.array([each[batch]]) for each in found[one]] for one in (option, PLAIN))
            times, ends = speedup(plain, mine)
            ms = float(np.median([each[batch] for each in sessions]))
            rows.append({**where, "option": option, "batch": batch, "cpu_ms": ms, "times": times, "ci95": ends})
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
