"""time_layers: what each module of the user's takes before and after a change of numerics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mlpack.core.report import Report
from mlpack.core.stage import BEFORE, Outcome, Stage

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job


class TimeLayers(Stage):
    """Time each module on the backend that serves the model, and in the rival `before`, by the backend's profiler.

    One process, one launch, batch 1: this orders layers by what they gain, and proves nothing.
    """

    name: ClassVar[str] = "time_layers"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx",)
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "openvino")
    timing: ClassVar[bool] = True

    def reads(self) -> tuple[Part, ...]:
        """A row to time on."""
        return ("calibration",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Ms by module, in the model and before."""
        assert model is not None
        assert model.backend is not None
        from mlpack.measure.machine import timing_lock
        from mlpack.stages import samples

        example, _ = samples.rows(model, job, "calibration", 1)
        backend = job.backend(model.backend)
        rows: dict[str, dict[str, Any]] = {}
        with timing_lock():
            for label, each in ((BEFORE, job.rivals[BEFORE]), ("after", model)):
                job.say(f"timing layers, {label}")
                for spent in backend.operators(each, job.target, each.backend_options, example):
                    row = rows.setdefault(spent.module, {"module": spent.module, BEFORE: 0.0, "after": 0.0})
                    row[label] += spent.ms
        return Outcome(model=model, report=Report(tables={"modules": list(rows.values())}))
