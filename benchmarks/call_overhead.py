"""What mlpack's session costs around a backend: microseconds of a call beside the library's own, in turns.

Both get the same arrays and threads, in one process; blocks of calls take turns, and the medians over blocks of their
median calls are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
import tables
from int8 import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlpack.core.model import Model

    Call = Callable[[dict[str, np.ndarray]], Any]

MOST_US = 20.0
WARM_UP, CALLS = 500, 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-mlp", help="a folder of sample_models/")
    parser.add_argument("--blocks", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calls-") as folder:
        rows = measured(Bench(given.model, Path(folder), {}), given.blocks)
    record.write("call_overhead", {"model": given.model, "blocks": given.blocks, "most_us": MOST_US, "rows": rows})
    tables.render_all()
    print(tables.call_overhead(record.read("call_overhead") or {}))
    return 0 if all(row["mlpack_us"] - row["library_us"] <= MOST_US for row in rows) else 1


def measured(bench: Bench, blocks: int) -> list[dict[str, Any]]:
    """A row for each backend and batch size."""
    from mlpack.backends import BACKENDS
    from mlpack.datasets.ref import open_part

    assert bench.context.data is not None
    threads = bench.context.threads
    contenders = {
        "onnxruntime": (bench.graph, onnxruntime_alone(bench.graph, threads)),
        "openvino": (bench.graph, openvino_alone(bench.graph, threads)),
    }
    rows = []
    for name, (model, alone) in contenders.items():
        options = model.backend_options.model_copy(update={"threads": threads})
        with ExitStack() as held:
            runner = held.enter_context(BACKENDS[name].open(model, bench.context.target, options))
            for batch in (1, 8):
                arrays = next(iter(open_part(bench.context.data, "calibration", model.inputs).batches(batch))).inputs
                ours, theirs = in_turns((runner, alone), arrays, blocks)
                rows.append({"backend": name, "batch": batch, "mlpack_us": ours, "library_us": theirs})
                print(rows[-1], flush=True)
    return rows


def onnxruntime_alone(model: Model, threads: int) -> Call:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(str(model.entry_path), settings, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, arrays)


def openvino_alone(model: Model, threads: int) -> Call:
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = (
        ov.Core().compile_model(str(model.entry_path), "CPU", {**settings, "NUM_STREAMS": 1}).create_infer_request()
    )
    return request.infer


def in_turns(calls: tuple[Call, ...], arrays: dict[str, np.ndarray], blocks: int) -> list[float]:
    """The median over blocks of each one's median call, in microseconds."""
    for call in calls:
        for _ in range(WARM_UP):
            call(arrays)
    found: list[list[float]] = [[] for _ in calls]
    order = np.random.default_rng(0)
    for _ in range(blocks):
        for index in order.permutation(len(calls)):
            times = []
            for _ in range(CALLS):
                started = time.perf_counter_ns()
                calls[index](arrays)
                times.append(time.perf_counter_ns() - started)
            found[index].append(statistics.median(times) / 1000)
    return [statistics.median(each) for each in found]


if __name__ == "__main__":
    sys.exit(main())
