"""profile_latency: contenders take turns in fresh processes on the same rows, and the time is split by component."""

from __future__ import annotations

import random
import sys
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mlpack.core.arrays import save_arrays
from mlpack.core.model import Model
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.core.target import Target

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format
    from mlpack.core.stage import Job, Say

SAMPLES = "timings.npz"
OPTIMIZED = "optimized"
_ROWS = "rows.npz"
_TOP_OPERATORS = 6
# Processes that are loaded side by side, and how many times its files a loaded model takes.
_ABREAST = 10
_LOADED = 3


class ProfileLatency(Stage):
    """Time the model against its rivals. A block is a fresh process; intervals are over launches.

    In each round every contender is launched once, in random order, alone on the machine, with the same rows,
    batch sizes and threads. Tables: `latency` (a row per contender and batch, ms) and `components` (copy in,
    operators, copy out of the model at the first batch size; shares sum to 1).
    """

    name: ClassVar[str] = "profile_latency"
    accepts: ClassVar[tuple[Format, ...]] = ("torch", "onnx", "openvino", "tensorrt")
    timing: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("mlpack.measure.launches", "mlpack.measure.clock")
    keyed_by_threads: ClassVar[bool] = True

    batches: tuple[int, ...] = Field(default=(1, 8), min_length=1, description="batch sizes")
    launches: int = Field(default=5, ge=1, description="fresh processes per contender; 1 gives no interval")
    seconds: float = Field(default=0.4, gt=0, description="time spent on one batch size in one launch")
    components: bool = Field(default=True, description="split one request into its components")

    def reads(self) -> tuple[Part, ...]:
        """Rows to time on."""
        return ("calibration",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Launch, time, compare."""
        assert model is not None
        import numpy as np

        from mlpack.measure.machine import timing_lock
        from mlpack.stages import samples

        batches = list(self.batches) if model.dynamic_batch else [samples.static_batch(model)]
        example, kind = samples.rows(model, job, "calibration", max(batches))
        rows = {name: np.resize(array, (max(batches), *array.shape[1:])) for name, array in example.items()}
        save_arrays(job.out / _ROWS, rows)
        contenders = {OPTIMIZED: model, **job.rivals}
        timed: dict[str, dict[int, list[np.ndarray]]] = {
            label: {batch: [] for batch in batches} for label in contenders
        }
        steady = True
        with timing_lock():
            for wave in _waves(contenders, self.launches, random.Random(job.seed)):  # noqa: S311 - an order of turns
                for label, given in zip(wave, _in_turns(wave, contenders, job, batches, self.seconds), strict=True):
                    for batch in batches:
                        timed[label][batch].append(np.array(given["ms"][str(batch)]))
                    steady &= given["steady"]
                job.say("timing, in turns", len(timed[OPTIMIZED][batches[0]]), self.launches)
            split = self._split(model, job, batches[0]) if self.components else []
        save_arrays(job.out / SAMPLES, _flat(timed))
        latency = [row for batch in batches for row in _rows(timed, batch)]
        metrics = {"steady": steady, "rows": kind, "threads": job.threads, "launches": self.launches}
        return Outcome(
            model=model,
            report=Report(
                metrics=metrics, tables={"latency": latency, "components": split}, files=(SAMPLES,)
            ),
        )

    def _split(self, model: Model, job: Job, batch: int) -> list[dict[str, Any]]:
        job.say("timing components")
        arguments = _block_arguments(model, job, [batch], self.seconds)
        found: list[dict[str, Any]] = job.call("mlpack.stages.profile_latency:components", arguments)
        return found


def _waves(contenders: dict[str, Model], launches: int, order: random.Random) -> list[list[str]]:
    """The turns: in each round every contender once, in random order. A wave is loaded side by side before its
    turns are run one at a time: as many rounds as fit the memory and `_ABREAST` processes, one at least."""  # noqa: D205, D209
    import psutil

    rounds = [order.sample(list(contenders), len(contenders)) for _ in range(launches)]
    round_bytes = _LOADED * sum(model.size_bytes for model in contenders.values())
    roomy = int(psutil.virtual_memory().available / 2 / max(round_bytes, 1))
    together = max(1, min(roomy, _ABREAST // len(contenders)))
    return [list(chain.from_iterable(rounds[start : start + together])) for start in range(0, launches, together)]


def _in_turns(
    wave: list[str], contenders: dict[str, Model], job: Job, batches: list[int], seconds: float
) -> list[dict[str, Any]]:
    """Load the wave's processes side by side; then let one at a time run, when all others stand still."""
    from mlpack.measure.machine import wait_until_idle

    launched = [
        job.launch("mlpack.stages.profile_latency:block", _block_arguments(contenders[label], job, batches, seconds))
        for label in wave
    ]
    try:
        for each in launched:
            each.ready()
        results = []
        for index, each in enumerate(launched):
            wait_until_idle([waiting.pid for waiting in launched[index:]])
            results.append(each.finish())
        return results
    finally:
        for each in launched:
            each.end()


def _block_arguments(model: Model, job: Job, batches: list[int], seconds: float) -> dict[str, Any]:
    return {
        "model": {"path": str(model.path), **model.model_dump(mode="json")},
        "target": job.target.model_dump(mode="json"),
        "threads": job.threads,
        "rows": str(job.out / _ROWS),
        "batches": batches,
        "seconds": seconds,
    }


def _flat(timed: dict[str, dict[int, list[np.ndarray]]]) -> dict[str, np.ndarray]:
    return {
        f"{label}/{batch}/{launch}": ms
        for label, by_batch in timed.items()
        for batch, blocks in by_batch.items()
        for launch, ms in enumerate(blocks)
    }


def _rows(timed: dict[str, dict[int, list[np.ndarray]]], batch: int) -> list[dict[str, Any]]:
    from mlpack.measure.launches import speedup, timing

    rows = []
    for label, by_batch in timed.items():
        row: dict[str, Any] = {"contender": label, "batch": batch}
        row |= timing(by_batch[batch]).model_dump(mode="json")
        if label != OPTIMIZED:
            ratio, interval = speedup(by_batch[batch], timed[OPTIMIZED][batch])
            row |= {"speedup_over": ratio, "speedup_over_ci95": interval}
        rows.append(row)
    return rows


def block(
    say: Say, model: dict[str, Any], target: dict[str, Any], threads: int, rows: str, batches: list[int], seconds: float
) -> dict[str, Any]:
    """One launch of one contender: milliseconds per call for each batch size. Runs in a process of its own, which
    loads the model, says that it is ready and waits for its turn."""  # noqa: D205, D209
    import numpy as np

    from mlpack.backends import BACKENDS
    from mlpack.measure.clock import time_calls, warm_up

    opened = Model.model_validate(model)
    assert opened.backend is not None
    options = opened.backend_options.model_copy(update={"threads": threads})
    inputs = dict(np.load(Path(rows)))
    ms: dict[str, list[float]] = {}
    steady = True
    with BACKENDS[opened.backend].open(opened, Target.model_validate(target), options) as runner:
        say("ready")
        sys.stdin.readline()
        for batch in batches:
            feeds = {name: np.ascontiguousarray(array[:batch]) for name, array in inputs.items()}
            call = partial(runner, feeds)
            steady &= warm_up(call)
            ms[str(batch)] = time_calls(call, seconds, warmup_seconds=0).tolist()
    return {"ms": ms, "steady": steady}


def components(
    say: Say, model: dict[str, Any], target: dict[str, Any], threads: int, rows: str, batches: list[int], seconds: float
) -> list[dict[str, Any]]:
    """Copy in, the operators of compute, copy out: median ms and share of one request. In its own process."""
    del say
    import numpy as np

    from mlpack.backends import BACKENDS
    from mlpack.measure.clock import time_calls

    opened = Model.model_validate(model)
    assert opened.backend is not None
    backend = BACKENDS[opened.backend]
    where = Target.model_validate(target)
    options = opened.backend_options.model_copy(update={"threads": threads})
    feeds = {name: np.ascontiguousarray(array[: batches[0]]) for name, array in np.load(Path(rows)).items()}
    with backend.open(opened, where, options) as runner:
        runner(feeds)
        copy_in = float(np.median(time_calls(partial(runner.copy_in, feeds), seconds / 4)))
        compute = float(np.median(time_calls(runner.compute, seconds)))
        copy_out = float(np.median(time_calls(runner.copy_out, seconds / 4)))
    operators = backend.operators(opened, where, options, feeds)
    # The library's profiler slows each operator a little: its shares are kept, its sum is not.
    scale = compute / sum(operators.values()) if operators else 0.0
    ranked = sorted(operators.items(), key=lambda item: -item[1])
    rows_out = [("copy in", copy_in), *((name, ms * scale) for name, ms in ranked[:_TOP_OPERATORS])]
    rest = sum(ms for _, ms in ranked[_TOP_OPERATORS:]) * scale
    if not operators:
        rows_out.append(("compute", compute))
    elif rest:
        rows_out.append((f"{len(ranked) - _TOP_OPERATORS} other operators", rest))
    rows_out.append(("copy out", copy_out))
    whole = sum(ms for _, ms in rows_out)
    return [{"name": name, "p50": ms, "share": ms / whole} for name, ms in rows_out]
