"""One contender of gpu.py in a process of its own: makes its model (or finds it made), times it, prints JSON.

Everything about the device is data: the same lines run on a card and on the CPU. Where a contender cannot run it is
printed why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import opening
import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.backend import Runner
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Model
    from mlpack.engine.context import Context

    Arrays = dict[str, np.ndarray]

# A P99 needs so many calls; blocks last at most so many times the seconds that were asked for.
ENOUGH_CALLS, MOST_TIMES = 368, 4
CHECKED_ROWS = 8
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class LeftOutError(Exception):
    """The contender cannot run here; the message says why."""


def main() -> None:
    from mlpack.errors import MlpackError

    job = json.loads(sys.argv[1])
    try:
        told = facts(job) if job["backend"] is None else timed(job)
    except (MlpackError, LeftOutError) as error:
        told = {"left_out": getattr(error, "message", str(error))}
    print(json.dumps(told))


def facts(job: dict[str, Any]) -> dict[str, Any]:
    """What all contenders are held to: the operations of the graph, its floor by batch size and numerics."""
    from mlpack.measure.graph_cost import graph_cost
    from mlpack.measure.roofline import floors_ms

    context, source = opened(job)
    rows = subject(job).rows
    graph = exported(context, source)
    sizes = {
        str(dim): size
        for spec in graph.inputs
        for dim, size in zip(spec.dims, rows[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }
    symbols = {str(spec.dims[0]) for spec in graph.inputs if spec.dims and isinstance(spec.dims[0], str)}
    found: dict[str, Any] = {"operations": {}, "floor_ms": {}}
    for batch in job["batches"]:
        cost = graph_cost(graph.entry_path, {**sizes, **dict.fromkeys(symbols, batch)})
        found["operations"][batch] = cost.operations
        found["floor_ms"][batch] = floors_ms(cost, context.target, context.threads)
        found["weights"] = cost.weights
    return found


def timed(job: dict[str, Any]) -> dict[str, Any]:
    """By batch size what a call takes by the device's clock and by the wall's, with copies and without, and energy."""
    from mlpack.measure.machine import timing_lock
    from mlpack.measure.telemetry import Sensors

    check_libraries(job)
    given = subject(job)
    sensors = Sensors(job["device"])
    with session(job, given.source) as runner:
        error = distance(given.expected, runner(first(given.rows, CHECKED_ROWS)))
        with timing_lock():
            by_batch = {
                str(batch): block(runner, first(given.rows, batch), job["seconds"], sensors) for batch in job["batches"]
            }
    return {"error": error, "batches": by_batch}


def check_libraries(job: dict[str, Any]) -> None:
    """What costs nothing to ask is asked before anything is loaded or made."""
    from mlpack.core.target import Target
    from mlpack.stages.build_engine import BuildEngine

    if job["backend"] == "tensorrt":
        target = Target.model_validate(job["target"])
        if reason := BuildEngine().refusal(target):
            raise LeftOutError(reason)
        BuildEngine().builder(target)
    if job["backend"] == "torchao" and importlib.util.find_spec("torchao") is None:
        raise LeftOutError("torchao is not installed")
    if job["backend"] == "onnxruntime" and job["device"] == "cuda":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise LeftOutError("this build of onnxruntime has no CUDAExecutionProvider")


def block(runner: Runner, feeds: Arrays, seconds: float, sensors: Any) -> dict[str, Any]:
    """Calls on rows that lie on the device; then requests, which bring their rows and fetch their answers."""
    from mlpack.measure.clock import time_calls, warm_up
    from mlpack.measure.telemetry import between

    runner.copy_in(feeds)
    steady = warm_up(runner.compute)
    wall: list[float] = []
    device: list[float] = []
    before, started = sensors.read(), time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or (
        len(wall) < ENOUGH_CALLS and spent < MOST_TIMES * seconds
    ):
        from_here = time.perf_counter_ns()
        runner.compute()
        wall.append((time.perf_counter_ns() - from_here) / 1e6)
        if (ms := runner.device_ms()) is not None:
            device.append(ms)
    spent = time.perf_counter() - started
    seen = between(before, sensors.read())
    samples = len(wall) * len(next(iter(feeds.values())))
    request = time_calls(lambda: runner(feeds), seconds / 2)
    return {
        "steady": steady,
        "samples_per_s": samples / spent,
        "device": summary(device) if device else None,
        "wall": summary(wall),
        "request_p50_ms": float(np.median(request)),
        "energy_mj": None if seen.joules is None else seen.joules * 1e3 / samples,
        "clock_mhz": seen.clock_mhz,
        "celsius": seen.celsius,
        "slowed": list(seen.slowed),
    }


def summary(ms: list[float]) -> dict[str, Any]:
    """Median, and P99 where so many calls carry one."""
    from mlpack.measure.percentiles import percentile, values_needed

    values = np.array(ms)
    p99 = percentile(values, 0.99).value if len(values) >= values_needed(0.99) else None
    return {"calls": len(values), "p50_ms": float(np.median(values)), "p99_ms": p99}


def opened(job: dict[str, Any]) -> tuple[Context, Model]:
    """The model as it is handed in, loaded once for all contenders, and a context with its rows and the target."""
    from mlpack.core.target import Target

    found = opening.opened(record.sample(job["model"]), Path(job["work"]))
    return replace(found.context, target=Target.model_validate(job["target"])), found.original


@dataclass(frozen=True)
class Subject:
    """The model as it is handed in, rows for the largest batch, and what it answers to the first on the CPU."""

    source: Model
    rows: Arrays
    expected: Arrays


def subject(job: dict[str, Any]) -> Subject:
    """Made once, kept in the work folder: all contenders get the same."""
    from mlpack.backends import BACKENDS
    from mlpack.core.arrays import load_arrays, save_arrays
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Model
    from mlpack.datasets.ref import open_part
    from mlpack.engine.job import with_path

    count = max(*job["batches"], CHECKED_ROWS)
    folder = Path(job["work"]) / f"{job['model']}-{count}"
    described = folder / "source.json"
    if not described.is_file():
        context, source = opened(job)
        assert context.data is not None
        folder.mkdir(parents=True, exist_ok=True)
        few = next(iter(open_part(context.data, "calibration", source.inputs).batches(count))).inputs
        # Again and again where they are too few.
        rows = {name: np.resize(array, (count, *array.shape[1:])) for name, array in few.items()}
        options = BackendOptions(threads=context.threads)
        with BACKENDS["torch"].open(source, context.target, options) as runner:
            save_arrays(folder / "answers.npz", runner(first(rows, CHECKED_ROWS)))
        save_arrays(folder / "rows.npz", rows)
        described.write_text(json.dumps(with_path(source)), encoding="utf-8")
    return Subject(
        Model.model_validate_json(described.read_text(encoding="utf-8")),
        load_arrays(folder / "rows.npz"),
        load_arrays(folder / "answers.npz"),
    )


def first(rows: Arrays, count: int) -> Arrays:
    """So many of the rows."""
    return {name: np.ascontiguousarray(array[:count]) for name, array in rows.items()}


def distance(expected: Arrays, answers: Arrays) -> float:
    """The largest relative L2 distance of an output."""
    from mlpack.stages.samples import difference

    return max(difference(array, answers[name])[1] for name, array in expected.items())


@contextlib.contextmanager
def session(job: dict[str, Any], source: Model) -> Iterator[Runner]:
    """The contender, opened."""
    from mlpack.backends import BACKENDS, runs
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.target import Target
    from mlpack.core.threads import usable_threads

    name, numerics, target = job["backend"], job["numerics"], Target.model_validate(job["target"])
    options = BackendOptions(threads=usable_threads(), device=job["device"])
    if name == "torchao":
        # Its kernels take bfloat16 and narrow the products of linear layers alone.
        yield by_torchao(source, numerics, options.model_copy(update={"precision": "bfloat16"}))
        return
    model = source
    if name in runs("torch"):
        options = options.model_copy(update={"precision": PRECISIONS[numerics]})
    else:
        model = made(job)
    if reason := BACKENDS[name].refusal(model, target, options):
        raise LeftOutError(reason)
    with BACKENDS[name].open(model, target, options) as runner:
        yield runner


def exported(context: Context, source: Model) -> Model:
    """The float graph, simplified where the simplifier is installed."""
    from mlpack.engine.run import run
    from mlpack.stages.export import Export
    from mlpack.stages.simplify import Simplify

    graph = run(Export(), source, context).model
    return graph if importlib.util.find_spec("onnxsim") is None else run(Simplify(), graph, context).model


def made(job: dict[str, Any]) -> Model:
    """The graph in these numerics by the target's rules; for TensorRT an engine of it."""
    from mlpack.engine.run import run
    from mlpack.stages.build_engine import BuildEngine
    from mlpack.stages.quantize import Quantize

    context, source = opened(job)
    numerics, batches = job["numerics"], sorted(job["batches"])
    graph = exported(context, source)
    if numerics != "fp32":
        method = "cast" if numerics in {"fp16", "bf16"} else "static"
        stage = Quantize(numerics=numerics, method=method, operators="weighted" if method == "static" else "auto")
        if reason := stage.refusal(context.target):
            raise LeftOutError(reason)
        graph = run(stage, graph, context).model
    if job["backend"] != "tensorrt":
        return graph
    sizes = (batches[0], batches[len(batches) // 2], max(batches[-1], CHECKED_ROWS))
    return run(BuildEngine(batches=sizes), graph, context).model


def by_torchao(source: Model, numerics: str, options: BackendOptions) -> Runner:
    """Linear layers with dynamic scales, under torch.compile: what torch itself has for int8 and fp8."""
    import torch
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8DynamicActivationInt8WeightConfig,
        quantize_,
    )

    from mlpack.backends.torch import failed
    from mlpack.backends.torch_device import placed, refusal_to_place
    from mlpack.backends.torch_runner import TensorRunner

    if reason := refusal_to_place(source, options):
        raise LeftOutError(reason)
    config = {"int8": Int8DynamicActivationInt8WeightConfig, "fp8": Float8DynamicActivationFloat8WeightConfig}[numerics]
    module = placed(source, options)
    quantize_(module.inner, config())
    return TensorRunner(torch.compile(module), source, torch.device(options.device), failed)


if __name__ == "__main__":
    main()
