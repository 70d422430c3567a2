"""golden: a few real inputs with the model's answers and the tolerance that a server is held to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mlpack.core.arrays import save_arrays
from mlpack.core.dataset import to_json
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.backend import Runner
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.datasets.rows import RowDataset

RAW = "raw.jsonl"
_SAFETY = 3.0
# Two runs of one kernel may round differently; nothing tighter than this can be asked of another machine.
_FLOOR = 1e-5


class Golden(Stage):
    """Answers given one at a time, and a measured tolerance.

    It is 3 × the largest spread seen over batch sizes and, where the backend has them, with and without graph
    optimizations.
    """

    name: ClassVar[str] = "golden"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx", "torch", "openvino", "tensorrt", "aotinductor", "torchscript")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnxruntime", "openvino")
    code: ClassVar[tuple[str, ...]] = ("mlpack.stages.samples",)
    keyed_by_threads: ClassVar[bool] = True

    samples: int = Field(default=8, ge=1, description="golden samples")

    def reads(self) -> tuple[Part, ...]:
        """Calibration rows: golden inputs are shown to everybody, so they must not be judged on."""
        return ("calibration",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Write inputs.npz and outputs.npz, raw.jsonl where samples are raw; report the tolerance of each output."""
        assert model is not None
        assert model.backend is not None

        from mlpack.stages import samples

        inputs, kind = samples.rows(model, job, "calibration", self.samples)
        backend = job.backend(model.backend)
        step = 1 if model.dynamic_batch else samples.static_batch(model)
        spread: dict[str, float] = {}
        with backend.open(model, job.target, model.backend_options) as runner:
            answers = _in_steps(runner, inputs, step)
            if model.dynamic_batch:
                for size in (2, self.samples):
                    _widen(spread, answers, _in_steps(runner, inputs, size))
            raw = _raw_rows(job, len(next(iter(inputs.values())))) if kind == "real" else None
            if raw is not None and model.dynamic_batch:
                _widen_alone(spread, answers, runner, raw)
        plain = model.backend_options.model_copy(update={"graph_optimizations": "off"})
        if backend.refusal(model, job.target, plain) is None:
            with backend.open(model, job.target, plain) as runner:
                _widen(spread, answers, _in_steps(runner, inputs, step))
        save_arrays(job.out / "inputs.npz", inputs)
        save_arrays(job.out / "outputs.npz", answers)
        if raw is not None:
            (job.out / RAW).write_text(_lines(raw.samples), encoding="utf-8")
        count = len(next(iter(answers.values())))
        scale = {name: _largest(array) for name, array in answers.items()}
        tolerance = {
            name: {"absolute": max(_SAFETY * spread.get(name, 0.0), _FLOOR * scale[name]), "relative": _FLOOR}
            for name in answers
        }
        return Outcome(
            model=model,
            report=Report(
                metrics={"tolerance": tolerance, "samples": count, "batch": step, "rows": kind},
                files=("inputs.npz", "outputs.npz", *((RAW,) if raw is not None else ())),
            ),
        )


@dataclass(frozen=True)
class _Raw:
    """The golden samples as they were before they were prepared, and each prepared by itself."""

    samples: list[dict[str, Any]]
    alone: list[dict[str, np.ndarray]]


def _raw_rows(job: Job, count: int) -> _Raw | None:
    """None where the data is arrays."""
    import numpy as np

    dataset = cast("RowDataset", job.dataset("calibration"))
    batch = next(iter(dataset.batches(count)))
    if batch.raw is None:
        return None
    samples = [{name: values[at] for name, values in batch.raw.items()} for at in range(len(batch))]
    return _Raw(samples, [next(iter(dataset.batches_of(np.array([row]), 1))).inputs for row in batch.rows])


def _widen_alone(spread: dict[str, float], answers: dict[str, np.ndarray], runner: Runner, raw: _Raw) -> None:
    """A server prepares each sample by itself: it is not as long then as the longest of a batch."""
    for at, inputs in enumerate(raw.alone):
        found = runner(inputs)
        cut = {
            name: array[at : at + 1][tuple(slice(size) for size in found[name].shape)]
            for name, array in answers.items()
        }
        _widen(spread, cut, found)


def _lines(samples: list[dict[str, Any]]) -> str:
    rows = ({name: to_json(value) for name, value in sample.items()} for sample in samples)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _in_steps(runner: Runner, inputs: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    import numpy as np

    count = len(next(iter(inputs.values())))
    parts = [
        runner({name: array[start : start + step] for name, array in inputs.items()}) for start in range(0, count, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _widen(spread: dict[str, float], reference: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, array in reference.items():
        gap = _largest(array.astype("float64") - other[name].astype("float64"))
        spread[name] = max(spread.get(name, 0.0), gap)


def _largest(array: np.ndarray) -> float:
    import numpy as np

    finite = np.abs(array[np.isfinite(array)]) if array.dtype.kind == "f" else np.abs(array)
    return float(finite.max()) if finite.size else 0.0
