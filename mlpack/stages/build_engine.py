"""build_engine: an ONNX graph becomes a TensorRT plan, by TensorRT on the card or by TensorRT-RTX anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from mlpack.backends.tensorrt_library import KINDS, Name, lacking, version_of
from mlpack.backends.tensorrt_plan import Hardware, Weights
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import MissingHardware, UnsupportedNumerics

if TYPE_CHECKING:
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target

_OLDEST = (7, 5)


def _ascending(sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise ValueError("smallest, usual and largest are wanted, as in [1, 8, 32]")
    return sizes


Sizes = Annotated[tuple[int, int, int], AfterValidator(_ascending)]


class BuildEngine(Stage):
    """Build a TensorRT 11 engine, strongly typed: int8 where the graph has Q/DQ, fp16 where it was cast.

    TensorRT builds on the card that the engine is for; TensorRT-RTX also for a card that is not here. One optimization
    profile spans `batches`; other free dims go from 1 to the largest size that the model takes. Beside `model.plan` lie
    `build.log`, `build.json` (types and layers of the parsed network) and, by TensorRT, `timing.cache`.
    """

    name: ClassVar[str] = "build_engine"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx",)
    gives: ClassVar[Format | None] = "tensorrt"
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.engine_network", "mlpack.stages.engine_builder",
        "mlpack.backends.tensorrt_library", "mlpack.backends.tensorrt_plan",
    )  # fmt: skip

    library: Literal["auto", "tensorrt", "tensorrt_rtx"] = Field(
        default="auto", description="the builder; auto: TensorRT for a card that is here, else TensorRT-RTX"
    )
    batches: Sizes = Field(
        default=(1, 8, 32),
        description="smallest, usual and largest batch; a recipe that leaves it out has those that it measures",
    )
    dims: dict[str, Sizes] = Field(
        default_factory=dict, description="the same for other free dims by name; else from 1 to the model's largest"
    )
    hardware: Hardware = Field(
        default="target", description="cards it runs on: the target's kind, its compute capability, all from Ampere on"
    )
    weights: Weights = Field(
        default="constants",
        description="in the plan, streamed from the host, replaceable, or left out of the plan",
    )
    version_compatible: bool = Field(default=False, description="also for later runtimes of TensorRT 11")
    tf32: bool = Field(default=False, description="let float32 be multiplied in TF32, with 10 bits of mantissa")
    workspace_mib: int | None = Field(default=None, ge=1, description="most device memory for one layer, in MiB")

    def keyed(self) -> dict[str, Any]:
        """With the versions of the builders that there are."""
        return {**super().keyed(), "builders": {name: version_of(name) for name in KINDS}}

    def refusal(self, target: Target) -> str | None:
        """NVIDIA devices that TensorRT 11 supports."""
        if target.kind != "cuda" or target.compute_capability is None:
            return f"TensorRT builds for NVIDIA cards, and {target.title} is none"
        if tuple(int(part) for part in target.compute_capability.split(".")) < _OLDEST:
            return f"TensorRT 11 needs compute capability 7.5, and {target.title} has {target.compute_capability}"
        return None

    def lacks(self) -> str | None:
        """Either of the two libraries."""
        names: tuple[Name, ...] = ("tensorrt", "tensorrt_rtx") if self.library == "auto" else (self.library,)
        errors = [lacking(name) for name in names]
        return None if None in errors else str(errors[-1])

    def builder(self, target: Target) -> Name:
        """The library that builds for this target here.

        Raises:
            MissingLibrary: it is not installed, or not in a version that this code is for.
            MissingHardware: the card that it builds on is not here.
        """
        name: Name = self.library if self.library != "auto" else "tensorrt_rtx"
        if self.library == "auto" and target.here and lacking("tensorrt") is None:
            name = "tensorrt"
        if (error := lacking(name)) is not None:
            raise error
        if name == "tensorrt" and not target.here:
            raise MissingHardware(
                f"TensorRT builds on the card itself, and {target.title} is not here",
                "run this on that card, or --set build_engine.library=tensorrt_rtx",
            )
        return name

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Parse, build, write the plan and what is known of it.

        Raises:
            MissingLibrary: no builder is installed for this target, or not in a version that this code is for.
            MissingHardware: what was asked for is built on the card itself.
            UnsupportedNumerics: the target is none of NVIDIA's.
            StageFailed: the parser has no layer for some nodes, types got lost, or the builder refuses the network.
        """
        assert model is not None
        if reason := self.refusal(job.target):
            raise UnsupportedNumerics(f"build_engine: {reason}", f"mlpack targets {job.target.name}")
        name = self.builder(job.target)
        from mlpack.backends.tensorrt_library import load
        from mlpack.backends.tensorrt_plan import PLAN
        from mlpack.stages.engine_builder import built

        build, seconds = built(load(name), self, model, job)
        update = {"path": job.out, "entry": PLAN, "format": "tensorrt"}
        counts = {"layers": build.layers, "tensors": build.tensors, "compute": build.compute}
        tables = {
            table: [{"kind": kind, "count": count} for kind, count in sorted(counted.items())]
            for table, counted in counts.items()
        }
        metrics = {
            "library": build.library, "version": build.version, "compute_capability": build.compute_capability,
            "quantized_layers": build.quantized, "plan_bytes": build.plan_bytes, "build_seconds": round(seconds, 2),
            "profile": {key: each.model_dump(mode="json") for key, each in build.profile.items()},
        }  # fmt: skip
        return Outcome(model=model.model_copy(update=update), report=Report(metrics=metrics, tables=tables))
