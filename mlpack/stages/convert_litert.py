"""convert_litert: a torch model becomes a LiteRT file (.tflite) for phones and small boards, held to the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mlpack.core.installation import DISTRIBUTION
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import MissingLibrary, StageFailed
from mlpack.stages.torch_imports import imports_of

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model, TensorSpec
    from mlpack.core.stage import Job
    from mlpack.stages.torch_program import Program

ENTRY = "model.tflite"
# It pins typing-extensions to an old version, and brings jax and a compiler: 700 MB.
_INSTALL = f"in an environment of its own: pip install '{DISTRIBUTION}[litert]'"
_NARROWER = {"int64": "int32", "float64": "float32"}
_CHECKED_CALLS = 8


class ConvertLitert(Stage):
    """Convert with Google's litert-torch: a .tflite file of one batch size, in float32.

    Free dims are fixed: the batch at `batch`, others at their size in the data. LiteRT's interpreter runs the file here
    on real rows, beside the original; an output whose relative L2 difference is over `tolerance` is an error.
    """

    name: ClassVar[str] = "convert_litert"
    accepts: ClassVar[tuple[Format, ...]] = ("torch",)
    gives: ClassVar[Format | None] = "litert"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.stages.torch_program", "mlpack.backends.litert",
        "mlpack.backends.torch_loader", "mlpack.backends.torch_modes", "mlpack.backends.torch_surgery",
    )  # fmt: skip
    keyed_by_target: ClassVar[bool] = False

    batch: int = Field(default=1, ge=1, description="samples of one call; the converter fails on many free batches")
    tolerance: float = Field(default=1e-3, gt=0, description="largest relative L2 difference of an output")

    def reads(self) -> tuple[Part, ...]:
        """Real rows to verify on."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Convert, then verify against the original.

        Raises:
            MissingLibrary: litert-torch is not installed.
            StageFailed: it has no translation for the model, or the file answers differently.
        """
        assert model is not None
        try:
            import litert_torch
        except ModuleNotFoundError as error:
            raise MissingLibrary("converting to LiteRT needs the library litert-torch", _INSTALL) from error
        from mlpack.stages.torch_program import Program

        program = Program(model, job, "fp32")
        calls = _calls(program.rows, self.batch if model.dynamic_batch else None)
        job.say("converting to LiteRT")
        _convert(litert_torch, program, calls[0], model).export(str(job.out / ENTRY))
        made, worst = self._verified(model, calls, job)
        metrics = {"verified_on": program.rows_are, "differences": worst, "calls": len(calls)}
        return Outcome(model=made, report=Report(metrics=metrics))

    def _verified(self, model: Model, calls: list[dict[str, np.ndarray]], job: Job) -> tuple[Model, dict[str, float]]:
        """The file as a Model of the sizes that it has, and how far its answers are from the original's."""
        from mlpack.core.backend_options import BackendOptions
        from mlpack.stages.samples import difference

        options = BackendOptions(threads=job.threads)
        job.say("verifying the LiteRT file against the original")
        with job.backend("torch").open(model, job.target, options) as original:
            expected = [original(call) for call in calls]
        update = {
            "path": job.out, "entry": ENTRY, "format": "litert", "backend": "litert", "largest": {},
            "inputs": _fixed(model.inputs, calls[0]), "outputs": _fixed(model.outputs, expected[0]),
        }  # fmt: skip
        made = model.model_copy(update=update)
        worst: dict[str, float] = {}
        with job.backend("litert").open(made, job.target, options) as runner:
            for call, answers in zip(calls, expected, strict=True):
                found = runner(call)
                for name, array in answers.items():
                    worst[name] = max(worst.get(name, 0.0), difference(array, found[name])[1])
        for name, relative in worst.items():
            if not relative <= self.tolerance:
                raise StageFailed(
                    f"the LiteRT file differs from the original in output {name!r}: relative difference "
                    f"{relative:.2g} (allowed {self.tolerance:g})",
                    "--set convert_litert.tolerance=… where that is near enough",
                )
        return made, worst


def _calls(rows: dict[str, np.ndarray], batch: int | None) -> list[dict[str, np.ndarray]]:
    """The rows in calls of one size, a few of them; too few rows come again."""
    import numpy as np

    count = len(next(iter(rows.values())))
    size = batch or count
    whole = {name: np.resize(array, (max(size, count), *array.shape[1:])) for name, array in rows.items()}
    starts = range(0, max(size, count) - size + 1, size)
    return [{name: array[at : at + size] for name, array in whole.items()} for at in starts][:_CHECKED_CALLS]


def _convert(litert_torch: Any, program: Program, call: dict[str, np.ndarray], model: Model) -> Any:
    from mlpack.backends.torch_runner import REFUSALS, one_line, to_tensor

    arguments = tuple(to_tensor(call[spec.name]) for spec in model.inputs)
    try:
        return litert_torch.convert(program.module, arguments)
    except (*REFUSALS, AttributeError, NotImplementedError) as error:
        raise StageFailed(
            f"litert-torch {litert_torch.__version__} cannot convert this model: {type(error).__name__}: "
            f"{one_line(error)}",
            "replace that operation in forward() by others",
        ) from error


def _fixed(specs: tuple[TensorSpec, ...], arrays: dict[str, np.ndarray]) -> tuple[TensorSpec, ...]:
    """The specs with the sizes of these arrays; there are no 64 bits."""
    return tuple(
        spec.model_copy(update={"dims": arrays[spec.name].shape, "dtype": _NARROWER.get(spec.dtype, spec.dtype)})
        for spec in specs
    )
