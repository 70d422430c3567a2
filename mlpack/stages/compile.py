"""compile: give a model to the backend that would serve it, with the options it will be served with."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from mlpack.backends import BACKENDS, able, runs
from mlpack.core.backend_options import BackendOptions
from mlpack.core.provider import Cuda, Provider, TensorRt
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import MissingHardware, StageFailed, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target

# The one backend that has all of these options.
_ONNXRUNTIME = "onnxruntime"
_ITS_OWN = ("provider", "waiting")


class Compile(Stage):
    """Open the model in a backend on real rows and write down who runs it, and how.

    `backend: auto` proposes every backend that can run this model here, on a card that is here with each of its
    providers; measuring decides. Options that onnxruntime alone has leave the others out. For a target that is not this
    machine the graph is opened literally (Q/DQ in fp32, nothing fused), which simulates its numerics.
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
    waiting: Literal["spin", "sleep"] = Field(
        default="spin", description="of onnxruntime's threads; sleep is slower alone, faster where others need the CPUs"
    )
    provider: Provider | None = Field(
        default=None,
        description="what onnxruntime computes with on a card, as in {name: tensorrt}; none: each is tried",
    )

    @field_validator("backend")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ("auto", *chain.from_iterable(runs(each) for each in cls.accepts))
        if name not in known:
            raise unknown("backend", name, known)
        return name

    @property
    def _its_own(self) -> list[str]:
        """The options that are set and that onnxruntime alone has."""
        return [name for name in _ITS_OWN if getattr(self, name) != type(self).model_fields[name].default]

    def reads(self) -> tuple[Part, ...]:
        """Rows to open the model on."""
        return ("calibration",)

    def clash(self) -> str | None:
        """What onnxruntime alone has beside another backend."""
        if self._its_own and self.backend not in {"auto", _ONNXRUNTIME}:
            return f"{self._its_own[0]} is for {_ONNXRUNTIME}, and this is {self.backend}"
        return None

    def refusal(self, target: Target) -> str | None:
        """An engine is opened on the card itself, and a provider computes there."""
        if self.backend in runs("tensorrt") and not target.here:
            return f"an engine runs on the card that it is for, and {target.title} is not here"
        if self.provider is not None and not _on_card(target):
            here = "is not here" if target.kind == "cuda" else "is none"
            return f"the provider {self.provider.name} computes on a card, and {target.title} {here}"
        return None

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """One stage for each backend that can run this model on this machine, and for each provider on a card.

        Raises:
            UsageError: the backend that was asked for cannot run it.
            MissingHardware: the provider that was asked for is not there, or nothing is that computes on this card.
        """
        if self.backend != "auto" and self.backend not in able(model):
            what = (
                f"{model.format} models" if self.backend not in runs(model.format) else "this graph's fused operators"
            )
            raise UsageError(
                f"{self.backend} does not run {what}", f"one of {', '.join(able(model))}, or leave the backend out"
            )
        ways = list(self._ways(model, target))
        if self._its_own and not ways:
            raise UsageError(f"{self._its_own[0]} is for ONNX graphs, and this is {model.format}", "leave it out")
        refusals = {way: BACKENDS[way.backend].refusal(model, target, way.options(model, target, None)) for way in ways}
        proposed = tuple(way for way in ways if refusals[way] is None)
        if proposed:
            return proposed
        reasons = "; ".join(dict.fromkeys(f"{way.backend}: {reason}" for way, reason in refusals.items()))
        if self.provider is not None or (_on_card(target) and model.numerics == "fp32" and model.format == "onnx"):
            raise MissingHardware(
                f"nothing runs this model on {target.title}: {reasons}", "pip install onnxruntime-gpu"
            )
        if self.backend != "auto":
            raise UsageError(
                f"{self.backend} cannot run this {model.numerics} model: {refusals[ways[0]]}",
                "leave --backend out: mlpack then tries every backend that can",
            )
        return ()

    def _ways(self, model: Model, target: Target) -> Iterator[Compile]:
        """This stage with every backend that may run the model, on a card with every provider."""
        for name in able(model) if self.backend == "auto" else (self.backend,):
            way = self.model_copy(update={"backend": name})
            if name == _ONNXRUNTIME and self.provider is None and self.device != "cpu" and _on_card(target):
                yield from (way.model_copy(update={"provider": each}) for each in (Cuda(), TensorRt()))
            elif name == _ONNXRUNTIME or not self._its_own:
                yield way

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
        literal = target.kind == "cuda" and not target.here and model.numerics in {"int8", "int4", "fp8"}
        found = BackendOptions(
            most_threads=self.most_threads,
            precision=precision,
            graph_optimizations="off" if literal else "all",
            device=self._device(model, target),
            waiting=self.waiting,
            provider=self.provider,
        )
        return found if threads is None else found.with_threads(threads)

    def _device(self, model: Model, target: Target) -> Literal["cpu", "cuda"]:
        if self.device != "auto":
            return self.device
        return "cuda" if model.format == "tensorrt" or (model.format == "onnx" and _on_card(target)) else "cpu"

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Open it, run it once.

        Raises:
            StageFailed: no backend runs these numerics, the backend refuses this model, or its weights lie on the disk.
        """
        assert model is not None
        from mlpack.stages import samples

        if model.on_disk:
            raise StageFailed(
                f"its {model.numerics} weights are too many for this machine's memory",
                "--int4 keeps them in fewer bits",
            )
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


def _on_card(target: Target) -> bool:
    return target.kind == "cuda" and target.here
