"""golden: a few real inputs with the model's answers and the tolerance that a server is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mlpack.core.arrays import save_arrays
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.backend import Runner
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job

_SAFETY = 3.0
# Two runs of one kernel may round differently; nothing tighter than this can be asked of another machine.
_FLOOR = 1e-5


class Golden(Stage):
    """Answers given one at a time, and a measured tolerance.

    It is 3 × the largest spread seen over batch sizes and, where the backend has them, with and without graph
    optimizations.
    """

    name: ClassVar[str] = "golden"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx", "torch", "openvino")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnxruntime", "openvino")
    code: ClassVar[tuple[str, ...]] = ("mlpack.stages.samples",)
    keyed_by_threads: ClassVar[bool] = True

    samples: int = Field(default=8, ge=1, description="golden samples")

    def reads(self) -> tuple[Part, ...]:
        """Calibration rows: golden inputs are shown to everybody, so they must not be judged on."""
        return ("calibration",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Write inputs.npz and outputs.npz; report the tolerance of each output."""
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
        plain = model.backend_options.model_copy(update={"graph_optimizations": "off"})
        if backend.refusal(model, job.target, plain) is None:
            with backend.open(model, job.target, plain) as runner:
                _widen(spread, answers, _in_steps(runner, inputs, step))
        save_arrays(job.out / "inputs.npz", inputs)
        save_arrays(job.out / "outputs.npz", answers)
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
                files=("inputs.npz", "outputs.npz"),
            ),
        )


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
