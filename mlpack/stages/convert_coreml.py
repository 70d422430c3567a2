"""convert_coreml: a torch model becomes a Core ML package for Apple's devices, which this machine cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mlpack.core.installation import DISTRIBUTION
from mlpack.core.model import TensorSpec
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import MissingLibrary, StageFailed
from mlpack.stages.torch_imports import imports_of

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.stages.torch_program import Program

ENTRY = "model.mlpackage"
NOT_RUN = "Core ML runs on Apple's systems alone: its answers and its speed are not known here"
_INSTALL = f"pip install '{DISTRIBUTION}[coreml]'"
# What the converter raises of a program that it has no translation for.
_REFUSALS = (NotImplementedError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError)
# Core ML has no integers of 64 bits: ids and masks are given to it in 32.
_NARROWER = {"int64": "int32", "bool": "int32"}


class ConvertCoreml(Stage):
    """Convert with Apple's coremltools: an ML program for iOS 16 and macOS 13 or later.

    The module is exported by torch.export with its free dims. Names, types and sizes of inputs and outputs are read
    back from the package. It cannot be run here, so nothing is said of its answers.
    """

    name: ClassVar[str] = "convert_coreml"
    accepts: ClassVar[tuple[Format, ...]] = ("torch",)
    gives: ClassVar[Format | None] = "coreml"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "coremltools")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.stages.torch_program",
        "mlpack.backends.torch_loader", "mlpack.backends.torch_modes", "mlpack.backends.torch_surgery",
    )  # fmt: skip
    keyed_by_target: ClassVar[bool] = False

    precision: Literal["float32", "float16"] = Field(
        default="float32", description="of weights and compute; Apple's neural engine has float16 alone"
    )

    largest: int = Field(
        default=64, ge=1, description="largest batch, and size of other free dims of which the model knows no largest"
    )

    def reads(self) -> tuple[Part, ...]:
        """Rows to export the module on."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Export, convert, read the package's own description.

        Raises:
            MissingLibrary: coremltools is not installed.
            StageFailed: torch cannot export the model, or the converter has no translation for it.
        """
        assert model is not None
        try:
            import coremltools
        except ModuleNotFoundError as error:
            raise MissingLibrary("converting to Core ML needs the library coremltools", _INSTALL) from error
        from mlpack.stages.torch_program import Program

        program = Program(model, job, "fp32")
        job.say("converting to Core ML")
        converted = _converted(coremltools, _exported(program), model, self)
        converted.save(str(job.out / ENTRY))
        inputs, outputs = _described(coremltools, job.out / ENTRY, model)
        numerics = "fp16" if self.precision == "float16" else model.numerics
        update = {"inputs": inputs, "outputs": outputs, "numerics": numerics}
        made = program.made(job, ENTRY, "coreml").model_copy(update=update)
        return Outcome(model=made, report=Report(metrics={"not_run_here": NOT_RUN}))


def _exported(program: Program) -> torch.export.ExportedProgram:
    """Decomposed to the core operators, recurrent layers too: the converter has no translation for many others."""
    import torch

    from mlpack.stages.torch_program import refusing

    with torch.no_grad(), refusing("export"):
        exported = torch.export.export(program.module, program.arguments, dynamic_shapes=(program.dynamic_shapes(),))
        return exported.run_decompositions()


def _converted(coremltools: Any, exported: torch.export.ExportedProgram, model: Model, stage: ConvertCoreml) -> Any:
    import numpy as np

    ranges = {
        dim: coremltools.RangeDim(1, model.largest.get(dim, stage.largest), 1)
        for spec in model.inputs
        for dim in spec.dims
        if isinstance(dim, str)
    }
    types = [
        coremltools.TensorType(
            name=spec.name,
            shape=tuple(ranges[dim] if isinstance(dim, str) else dim for dim in spec.dims),
            dtype=np.dtype(_NARROWER.get(spec.dtype, spec.dtype)).type,
        )
        for spec in model.inputs
    ]
    try:
        return coremltools.convert(
            exported,
            inputs=types,
            outputs=[coremltools.TensorType(name=spec.name) for spec in model.outputs],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=getattr(coremltools.precision, stage.precision.upper()),
            skip_model_load=True,
        )
    except _REFUSALS as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise StageFailed(
            f"coremltools {coremltools.__version__} cannot convert this model: {(lines or [type(error).__name__])[-1]}",
            "replace that operation in forward() by others",
        ) from error


def _described(coremltools: Any, package: Path, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as the package itself has them; free dims of outputs, which it does not tell, as before.

    Raises:
        StageFailed: it has others than the model.
    """
    description = coremltools.utils.load_spec(str(package)).description
    types = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType
    dtypes = {types.FLOAT32: "float32", types.FLOAT16: "float16", types.INT32: "int32", types.DOUBLE: "float64"}
    found = []
    for features, specs in ((description.input, model.inputs), (description.output, model.outputs)):
        told = {each.name: dtypes.get(each.type.multiArrayType.dataType, "unknown") for each in features}
        if set(told) != {spec.name for spec in specs}:
            raise StageFailed(
                f"the Core ML package has {', '.join(told)} where the model has {', '.join(s.name for s in specs)}",
                "let forward() take and give other names",
            )
        found.append(tuple(spec.model_copy(update={"dtype": told[spec.name]}) for spec in specs))
    return found[0], found[1]
