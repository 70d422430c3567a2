"""compile: give a model to the backend that would serve it, with the options it will be served with."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from mlpack.backends import BACKENDS, runs
from mlpack.core.backend_options import BackendOptions
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import StageFailed, UsageError, unknown

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target


class Compile(Stage):
    """Open the model in a backend on real rows and write down who runs it, and how.

    `backend: auto` proposes every backend that can run this model here; measuring decides. For a target that is
    not this machine the graph is opened literally (Q/DQ in fp32, nothing fused), which simulates its numerics.
    """

    name: ClassVar[str] = "compile"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx", "aotinductor", "torchscript", "tensorrt")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnxruntime", "openvino")
    code: ClassVar[tuple[str, ...]] = ("mlpack.stages.samples",)
    keyed_by_threads: ClassVar[bool] = True
    chooses_backend: ClassVar[bool] = True

    backend: str = Field(default="auto", description="the backend that will serve the model")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="execution precision of the float parts; auto follows the graph's numerics"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where it runs; auto: an engine on its card, a graph on the CPU"
    )
    most_threads: int | None = Field(
        default=None, ge=1, description="threads of the session at most; none: as many as the run has"
    )

    @field_validator("backend")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ("auto", *chain.from_iterable(runs(each) for each in cls.accepts))
        if name not in known:
            raise unknown("backend", name, known)
        return name

    def reads(self) -> tuple[Part, ...]:
        """Rows to open the model on."""
        return ("calibration",)

    def refusal(self, target: Target) -> str | None:
        """An engine is opened on the card itself, and nowhere else."""
        if self.backend in runs("tensorrt") and not target.here:
            return f"an engine runs on the card that it is for, and {target.title} is not here"
        return None

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """One stage for each backend that can run this model on this machine.

        Raises:
            UsageError: the backend that was asked for cannot run it.
        """
        names = runs(model.format) if self.backend == "auto" else (self.backend,)
        if self.backend != "auto" and self.backend not in runs(model.format):
            raise UsageError(
                f"{self.backend} does not run {model.format} models",
                f"one of {', '.join(runs(model.format))}, or leave the backend out",
            )
        refusals = {}
        proposed = []
        for name in names:
            reason = BACKENDS[name].refusal(model, target, self.options(model, target, None))
            if reason is None:
                proposed.append(self.model_copy(update={"backend": name}))
            else:
                refusals[name] = reason
        if not proposed and self.backend != "auto":
            raise UsageError(
                f"{self.backend} cannot run this {model.numerics} model: {refusals[self.backend]}",
                "leave --backend out: mlpack then tries every backend that can",
            )
        return tuple(proposed)

    def fewer_threads(self, threads: int) -> tuple[Stage, ...]:
        """With half as many threads, a quarter, and so on down to one; none where a bound was given."""
        if self.most_threads is not None:
            return ()
        counts = (threads >> halvings for halvings in range(1, threads.bit_length()))
        return tuple(self.model_copy(update={"most_threads": count}) for count in counts)

    def options(self, model: Model, target: Target, threads: int | None) -> BackendOptions:
        """The session options for this model and target."""
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if model.numerics == "bf16" else "float32"
        literal = target.kind == "cuda" and not target.here and model.numerics in {"int8", "fp8"}
        found = BackendOptions(
            most_threads=self.most_threads,
            precision=precision,
            graph_optimizations="off" if literal else "all",
            device=self._device(model),
        )
        return found if threads is None else found.with_threads(threads)

    def _device(self, model: Model) -> Literal["cpu", "cuda"]:
        if self.device != "auto":
            return self.device
        return "cuda" if model.format == "tensorrt" else "cpu"

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Open it, run it once.

        Raises:
            StageFailed: no backend runs these numerics, or the backend refuses this model.
        """
        assert model is not None
        from mlpack.stages import samples

        if self.backend == "auto":
            raise StageFailed(
                f"no backend on this machine runs {model.numerics} models", "mlpack doctor lists the backends"
            )
        options = self.options(model, job.target, job.threads)
        example, _ = samples.rows(model, job, "calibration", 1)
        job.say(f"opening in {self.backend}")
        with job.backend(self.backend).open(model, job.target, options) as runner:
            outputs = runner(example)
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        compiled = model.model_copy(update={"backend": self.backend, "backend_options": options})
        return Outcome(model=compiled, report=Report(metrics={"outputs": shapes}))
