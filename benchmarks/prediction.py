"""How far off a prediction is: prices of work learnt from the medians of some models, held against one left out.

Each model's float graph, its int8 ones and bfloat16 are timed on the backends that run them, with one thread and with
all, one after the other, in several rounds; what counts is the median call of the quietest round. The prices that all
of them give go into the catalogue, mlpack/core/catalogue/efficiency.yaml, with the error of the sample models, each
predicted at prices that were learnt without it. What was learnt with other instruction sets stays there. `--graphs
FOLDER` keeps what is made of the models, which takes most of the time, for a later run on a quieter machine.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import opening
import record
import tables

from mlpack.core import machine
from mlpack.core.targets import this_machine
from mlpack.core.threads import usable_threads
from mlpack.measure.graph_work import RATED
from mlpack.measure.prediction import Measured, learn, seconds_of
from mlpack.measure.roofline import floors_ms, peak_rate, unit

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.measure.graph_cost import GraphCost

Row = dict[str, Any]
# What a prediction is for: networks that somebody uses. reviews-bert would have to be built first.
JUDGED = (
    "tiny-mlp", "digits-resnet", "digits-pairs", "digit-lines", "words-gru", "emoji-efficientnet", "reviews-minilm",
    "resnet-18", "bert-base",
)  # fmt: skip
# What is learnt from beside them, with the data of each.
SHAPES = {
    "plain_convolutions": "images", "thin_convolutions": "images", "mobile": "images", "mobile_thin": "images",
    "next_small": "images", "wide_mlp": "vectors", "deep_mlp": "vectors", "lstm": "sequences",
    "lstm_both_ways": "sequences", "gru": "sequences", "encoder": "sequences", "encoder_wide": "sequences",
}  # fmt: skip
# What each backend is given: nothing but the float graph, or what these options of quantize make of it.
WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "onnxruntime": (
        {},
        {"numerics": "int8", "method": "static", "operators": "all"},
        {"numerics": "int8", "method": "dynamic", "operators": "weighted"},
    ),
    "openvino": (
        {},
        {"numerics": "bf16", "method": "cast"},
        {"numerics": "int8", "method": "static", "operators": "all"},
    ),
}
BATCHES = (1, 8)
CALIBRATION = 32
ROUNDS = 3
SECONDS, CALLS, WARM_UP_SECONDS = 0.1, 3, 0.05
AIM = 0.3
CATALOGUE = record.ROOT / "mlpack" / "core" / "catalogue" / "efficiency.yaml"
HEAD = """\
# What each kind of work costs on a machine where it was measured: benchmarks/prediction.py writes it. `efficiency` is
# the share of the unit's peak rate (measure/roofline.py) by kind of operator, `nanoseconds` those of everything
# else (measure/graph_work.py). The errors are those of models predicted at prices that were learnt without them.
"""


class Graph(NamedTuple):
    """What a backend runs of a model, rows for it by batch size, and what its float graph costs at each."""

    name: str
    model: Model
    rows: dict[int, dict[str, np.ndarray]]
    costs: dict[int, GraphCost]


class Way(NamedTuple):
    """What prices are learnt of by themselves."""

    backend: str
    numerics: str
    method: str | None
    threads: int

    @property
    def label(self) -> str:
        """In words."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{' '.join(filter(None, (self.numerics, self.method)))}, {threads}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", action="store_true", help="learn again from the timings of the last run")
    parser.add_argument("--graphs", metavar="FOLDER", help="where the graphs are made, and found again by a later run")
    parser.add_argument("--quick", action="store_true", help="one short round: is the script itself all right?")
    given = parser.parse_args()
    before = record.read("prediction") or {}
    if given.kept and before.get("cpu") != machine.cpu_name():
        parser.error("--kept: there are no timings of this CPU")
    if given.kept:
        rows, left_out, about = before["rows"], before["left_out"], {name: before[name] for name in record.about()}
        quick = before["quick"]
    else:
        about, quick = {}, given.quick
        with tempfile.TemporaryDirectory(prefix="prediction-") as folder:
            rows, left_out = measured(Path(given.graphs or folder), rounds=1 if quick else ROUNDS)
    lessons = [lesson(rows, way) for way in dict.fromkeys(way_of(row) for row in rows)]
    content = {
        "quick": quick,
        "aim": AIM,
        "judged": list(JUDGED),
        "left_out": left_out,
        "lessons": lessons,
        "rows": rows,
    }
    record.write("prediction", {**content, **about})
    if not quick:
        write_catalogue(lessons, record.read("prediction") or {})
    tables.render_all()
    print(tables.prediction(record.read("prediction") or {}))
    return 0 if all(each["median_error"] <= AIM for each in lessons) else 1


def measured(place: Path, rounds: int) -> tuple[list[Row], list[str]]:
    """A row for each model, numerics, number of threads and batch size; and what could not be made."""
    from mlpack.errors import MlpackError

    graphs, left_out = [], []
    for name in (*JUDGED, *SHAPES):
        try:
            graphs += made(name, place)
        except MlpackError as error:
            left_out.append(f"{name}: {error.message}")
        print(f"{name}: made", flush=True)
    found: dict[tuple[int, int, int], float] = {}
    for turn in range(rounds):
        for index, graph in enumerate(graphs):
            for threads in counts():
                for batch, ms in medians(graph, threads).items():
                    found[index, threads, batch] = min(ms, found.get((index, threads, batch), math.inf))
        print(f"round {turn + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}", flush=True)
    order = sorted(found, key=lambda each: (graphs[each[0]].model.backend or "", each[1]))
    rows = [row_of(graphs[index], threads, batch, found[index, threads, batch]) for index, threads, batch in order]
    return rows, left_out


def row_of(graph: Graph, threads: int, batch: int, ms: float) -> Row:
    """One median with the work that it was for."""
    model, cost = graph.model, graph.costs[batch]
    return {
        "model": graph.name,
        "backend": model.backend,
        "numerics": model.numerics,
        "method": None if model.quantization is None else model.quantization.method,
        "threads": threads,
        "batch": batch,
        "p50_ms": ms,
        "floor_ms": floors_ms(cost, this_machine(), threads)[model.numerics],
        "work": dict(cost.work),
    }


def way_of(row: Row) -> Way:
    return Way(*(row[name] for name in Way._fields))


def counts() -> list[int]:
    """The numbers of threads that are learnt of."""
    return sorted({1, usable_threads()})


def medians(graph: Graph, threads: int) -> dict[int, float]:
    """Ms of the median call by batch size, in a session of its own; other timings on this machine wait meanwhile."""
    from mlpack.backends import BACKENDS
    from mlpack.measure.clock import time_calls
    from mlpack.measure.machine import timing_lock

    options = graph.model.backend_options.with_threads(threads)
    found = {}
    backend = BACKENDS[cast("str", graph.model.backend)]
    with timing_lock(), backend.open(graph.model, this_machine(), options) as runner:
        for batch, rows in graph.rows.items():
            ms = time_calls(functools.partial(runner, rows), SECONDS, CALLS, WARM_UP_SECONDS)
            found[batch] = float(np.median(ms))
    return found


def made(name: str, place: Path) -> list[Graph]:
    """The simplified graph of a model in every way that a backend can run it."""
    from mlpack.api.floor import count
    from mlpack.datasets.ref import open_part
    from mlpack.engine.run import run
    from mlpack.errors import StageFailed
    from mlpack.stages.compile import Compile
    from mlpack.stages.quantize import Quantize

    found = opening.opened(words(name), place)
    graph = found.simplified()
    models = []
    for backend, ways in WAYS.items():
        for options in ways:
            sampled = {"samples": CALIBRATION} if options.get("method") == "static" else {}
            try:
                given = run(Quantize(**options, **sampled), graph, found.context).model if options else graph
                models.append(run(Compile(backend=backend), given, found.context).model)
            except StageFailed as error:
                print(f"{name}: not {' '.join([backend, *options.values()])}: {error.message}", flush=True)
    assert found.context.data is not None
    # As a timing takes them: of a batch, so that texts are as long as the longest of it.
    batch = next(iter(open_part(found.context.data, "calibration", graph.inputs).batches(max(BATCHES))))
    rows = {
        each: {key: np.resize(array, (each, *array.shape[1:])) for key, array in batch.inputs.items()}
        for each in BATCHES
    }
    counted = count(graph, BATCHES, {key: array.shape for key, array in batch.inputs.items()})
    return [Graph(name, model, rows, counted.costs) for model in models]


def words(name: str) -> list[str]:
    """The words that name a model and its data."""
    if name not in SHAPES:
        return record.sample(name)
    file = "benchmarks/models/shapes.py"
    return [f"{file}:{name}", "--data", f"{file}:{SHAPES[name]}"]


def lesson(rows: list[Row], way: Way) -> dict[str, Any]:
    """The prices of this way to run, and what each judged model is predicted to take without it."""
    fastest = unit(this_machine(), way.numerics)
    assert fastest is not None
    rate = peak_rate(fastest, way.numerics, way.threads)
    mine = [row for row in rows if way_of(row) == way and row["work"]]
    held = [{**row, "predicted_ms": predicted_without(row, mine, rate)} for row in mine]
    judged = [
        {
            **{key: row[key] for key in ("model", "batch", "p50_ms", "predicted_ms", "floor_ms")},
            "error": None if row["predicted_ms"] is None else abs(row["predicted_ms"] / row["p50_ms"] - 1),
        }
        for row in held
    ]
    errors = [row["error"] for row in judged if row["error"] is not None and row["model"] in JUDGED]
    efficiency, nanoseconds = learn([of(row) for row in mine], rate)
    return {
        **way._asdict(),
        "label": way.label,
        "unit": fastest,
        "models": len({row["model"] for row in mine}),
        "efficiency": {kind: short(each) for kind, each in efficiency.items()},
        "nanoseconds": {kind: short(each) for kind, each in nanoseconds.items() if each > 0},
        "median_error": statistics.median(errors),
        "most_error": max(errors),
        "median_error_of_all": statistics.median(row["error"] for row in judged if row["error"] is not None),
        "left_out": judged,
    }


def predicted_without(row: Row, rows: list[Row], rate: float) -> float | None:
    """Ms at prices learnt from the other models; None where they have nothing of one of its kinds of operator."""
    efficiency, nanoseconds = learn([of(each) for each in rows if each["model"] != row["model"]], rate)
    if any(kind in RATED and kind not in efficiency for kind in row["work"]):
        return None
    return max(seconds_of(row["work"], efficiency, nanoseconds, rate) * 1e3, float(row["floor_ms"]))


def of(row: Row) -> Measured:
    return Measured(row["work"], row["p50_ms"] / 1e3)


def short(value: float) -> float:
    return float(f"{value:.3g}")


def write_catalogue(lessons: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """What was learnt here in place of what was there for the same unit, numerics and threads."""
    import yaml

    names = ("backend", "numerics", "method", "unit", "threads", "efficiency", "nanoseconds", "models")
    fresh = [
        {
            **{name: each[name] for name in names},
            **{name: short(each[name]) for name in ("median_error", "most_error")},
            "cpu": result["cpu"],
            "version": result["libraries"][each["backend"]],
            "date": result["date"][:10],
        }
        for each in lessons
    ]
    key = ("backend", "numerics", "method", "unit", "threads")
    replaced = {tuple(row[name] for name in key) for row in fresh}
    there = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8")) or []
    kept = [row for row in there if tuple(row.get(name) for name in key) not in replaced]
    text = yaml.safe_dump([*kept, *fresh], sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    CATALOGUE.write_text(f"{HEAD}{text}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
