"""profile_latency: contenders take turns in fresh processes on the same rows, and the time is split by component."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mlpack.core.arrays import save_arrays
from mlpack.core.model import Model
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.stages.cold_start import Starts, cold_starts
from mlpack.stages.components import by_module
from mlpack.stages.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format
    from mlpack.core.stage import Job

SAMPLES = "timings.npz"
OPTIMIZED = "optimized"
BASELINE = "baseline"
_ROWS = "rows.npz"
_LENGTHS = "lengths.npz"
# Fewer launches are a quick look, and stay one.
_A_MEASUREMENT = 5
_MORE_LAUNCHES = 2


class ProfileLatency(Stage):
    """Time the model against its rivals. A block is a fresh process; intervals are over launches.

    In each round every contender is launched once, in random order, alone on the machine, with the same rows,
    batch sizes and threads. Rounds go on until every interval is narrow enough, or launches or time are used up
    (`ended` says which). What a native library ends in its turn is launched once more; what cannot be timed and is not
    `needed` is left out (`refused`). Tables: `latency` (a row per contender and batch, ms), `components` (copy in,
    operators, copy out of the model at the first batch size; shares sum to 1), `modules` (ms within each module of the
    user's, of the model and of a rival named `baseline`) and, where samples differ in length, `lengths` (median ms of
    one sample of each, in one launch).
    """

    name: ClassVar[str] = "profile_latency"
    accepts: ClassVar[tuple[Format, ...]] = ("torch", "onnx", "openvino", "tensorrt", "aotinductor", "torchscript")
    timing: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.measure.launches",
        "mlpack.measure.clock",
        "mlpack.measure.telemetry",
        "mlpack.stages.turns",
        "mlpack.stages.cold_start",
        "mlpack.stages.components",
        "mlpack.stages.lengths",
    )
    keyed_by_threads: ClassVar[bool] = True

    batches: tuple[int, ...] = Field(default=(1, 8), min_length=1, description="batch sizes")
    launches: int = Field(default=5, ge=1, description="fresh processes per contender; 1 gives no interval")
    most_launches: int = Field(default=12, ge=1, description="from 5 launches on: go on to so many until precise")
    precision: float = Field(default=0.05, gt=0, description="relative half-width of an interval that is narrow enough")
    time_limit: float = Field(default=30, gt=0, description="seconds after which no further launches begin")
    seconds: float = Field(default=0.4, gt=0, description="time spent on one batch size in one launch")
    starts: int = Field(
        default=0, ge=0, description="cold starts of each contender, alone; what cannot be started is left out"
    )
    needed: Literal["all", "first", "none"] = Field(
        default="all", description="contenders without which the stage fails; others that cannot be timed are left out"
    )
    components: bool = Field(default=True, description="split one request into its components")

    def reads(self) -> tuple[Part, ...]:
        """Rows to time on."""
        return ("calibration",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Launch, time, compare."""
        assert model is not None
        import numpy as np

        from mlpack.measure.launches import drift
        from mlpack.measure.machine import timing_lock
        from mlpack.stages import lengths, samples

        batches = list(self.batches) if model.dynamic_batch else [samples.static_batch(model)]
        example, kind = samples.rows(model, job, "calibration", max(batches))
        rows = {name: np.resize(array, (max(batches), *array.shape[1:])) for name, array in example.items()}
        save_arrays(job.out / _ROWS, rows)
        different = lengths.samples_by_length(model, job) if self.components else {}
        if different:
            lengths.save(job.out / _LENGTHS, different)
        contenders = {OPTIMIZED: model, **job.rivals}
        with timing_lock():
            starts = cold_starts(contenders, job.out / _ROWS, job, self.starts, batches[0]) if self.starts else Starts()
        turns = Turns(
            contenders={label: each for label, each in contenders.items() if label not in starts.refused},
            batches=batches,
            seconds=self.seconds,
            rows=job.out / _ROWS,
            job=job,
            order=random.Random(job.seed),  # noqa: S311 - an order of turns
            needed={"all": tuple(contenders), "first": (OPTIMIZED,), "none": ()}[self.needed],
            split=_split(job.rivals) if self.components else (),
            lengths=job.out / _LENGTHS if different else None,
        )
        with timing_lock():
            ended = self._play(turns)
        save_arrays(job.out / SAMPLES, _flat(turns.ms))
        latency = [row for batch in batches for row in _rows(turns.ms, batch)]
        for row in latency:
            contender = turns.contenders[row["contender"]]
            row["threads"] = contender.backend_options.with_threads(job.threads).threads
            row["energy_mj"] = _median(turns.energy_mj.get(row["contender"], {}).get(row["batch"]))
        parts, before = (turns.parts[label]["parts"] if label in turns.parts else [] for label in (OPTIMIZED, BASELINE))
        modules = by_module({label: turns.parts[label]["modules"] for label in turns.split})
        metrics = {
            "steady": turns.steady,
            "unsteady": turns.unsteady,
            "repeated": turns.repeated,
            "disturbed": turns.disturbed,
            "rough": sorted(turns.rough),
            "crashed": turns.crashed,
            "steal": turns.steal,
            "others": turns.others,
            "drift": max((drift([turns.ms[label][batch] for label in turns.ms]) for batch in batches), key=abs),
            "ended": ended,
            "peak_rss_bytes": turns.peak_rss_bytes,
            "clocks_moved": turns.clocks_moved,
            "slowed": sorted(turns.slowed),
            "telemetry": turns.telemetry,
            "starts_seconds": starts.seconds,
            "differences": starts.differences,
            "refused": {**starts.refused, **turns.refused},
            "device_ms": {label: each["device_ms"] for label, each in turns.parts.items()},
            "half_width": _half_width(latency),
            "rows": kind,
            "shapes": {name: list(array.shape) for name, array in rows.items()},
            "threads": job.threads,
            "launches": turns.launches,
        }
        return Outcome(
            model=model,
            report=Report(
                metrics=metrics,
                tables={
                    "latency": latency,
                    "components": parts,
                    "components_before": before,
                    "modules": modules,
                    "lengths": lengths.rows({label: turns.parts[label]["lengths"] for label in turns.split}),
                },
                files=(SAMPLES,),
            ),
        )

    def _play(self, turns: Turns) -> str:
        """Play rounds until every interval is narrow enough, or launches or time are used up; says which."""
        end = time.monotonic() + self.time_limit
        most = self.most_launches if self.launches >= _A_MEASUREMENT else self.launches
        turns.play(self.launches)
        while True:
            reached = _half_width([row for batch in turns.batches for row in _rows(turns.ms, batch)])
            if reached is not None and reached <= self.precision:
                return "precise"
            if turns.launches >= most:
                return "launches"
            if time.monotonic() >= end:
                return "time"
            turns.play(min(_MORE_LAUNCHES, most - turns.launches))


def _split(rivals: Mapping[str, Model]) -> tuple[str, ...]:
    """The model, and the original beside it."""
    return (OPTIMIZED, *(label for label in rivals if label == BASELINE))


def _median(values: list[float] | None) -> float | None:
    import numpy as np

    return float(np.median(values)) if values else None


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
        if label != OPTIMIZED and OPTIMIZED in timed:
            ratio, interval = speedup(by_batch[batch], timed[OPTIMIZED][batch])
            row |= {"speedup_over": ratio, "speedup_over_ci95": interval}
        rows.append(row)
    return rows


def _half_width(rows: list[dict[str, Any]]) -> float | None:
    """The widest interval of all speeds, of all medians where there is no rival: half of it, relative."""
    speeds = [row["speedup_over_ci95"] for row in rows if "speedup_over" in row]
    ends = speeds or [row["p50_ci95"] for row in rows]
    if any(each is None for each in ends):
        return None
    return max(math.sqrt(high / low) - 1 for low, high in ends)
