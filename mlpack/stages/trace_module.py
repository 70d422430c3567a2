"""trace_module: a torch model becomes a frozen TorchScript archive, which needs torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.stages.torch_imports import imports_of
from mlpack.stages.torch_numerics import Numerics, elsewhere, proposed

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target
    from mlpack.stages.torch_program import Program

_ENTRY = "model.ts"


class TraceModule(Stage):
    """Trace the module and freeze it: TorchScript with its weights as constants.

    What is a TorchScript archive already keeps its loops and branches. The file runs beside the original on real rows,
    one at a time and together; in float32 an output whose relative L2 difference is over `tolerance` is an error. bf16
    is torch's autocast.
    """

    name: ClassVar[str] = "trace_module"
    accepts: ClassVar[tuple[Format, ...]] = ("torch",)
    gives: ClassVar[Format | None] = "torchscript"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.stages.same_answers", "mlpack.stages.torch_program",
        "mlpack.backends.torch_loader", "mlpack.backends.torch_modes", "mlpack.backends.torch_surgery",
    )  # fmt: skip

    numerics: Numerics = Field(default="auto", description="auto: fp32, and bf16 where the CPU has it")
    tolerance: float = Field(default=1e-3, gt=0, description="largest relative L2 difference of an output in fp32")

    def reads(self) -> tuple[Part, ...]:
        """Real rows to verify on."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def refusal(self, target: Target) -> str | None:
        """Its numerics are those of this CPU."""
        return elsewhere(target)

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """One archive for each kind of numerics."""
        return tuple(self.model_copy(update={"numerics": each}) for each in proposed(self.numerics, model, target))

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Trace, freeze, verify.

        Raises:
            StageFailed: torch cannot trace the model, or the archive answers differently.
        """
        assert model is not None
        from mlpack.stages.same_answers import differences
        from mlpack.stages.torch_program import Program, refusing

        program = Program(model, job, self.numerics)
        job.say("tracing")
        with refusing("trace"):
            _frozen(program).save(str(job.out / _ENTRY))
        made = program.made(job, _ENTRY, "torchscript")
        job.say("verifying the archive against the original")
        allowed = self.tolerance if self.numerics == "fp32" else None
        worst = differences(model, made, "torchscript", program.rows, job, allowed)
        metrics = {"verified_on": program.rows_are, "differences": worst, "share": made.numerics_share}
        return Outcome(model=made, report=Report(metrics=metrics))


def _frozen(program: Program) -> Any:
    import warnings

    import torch

    with torch.no_grad(), warnings.catch_warnings():
        # What a trace loses is found by the rows that it is held to.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # A script module inside keeps its loops and branches.
        traced = torch.jit.trace(program.module, program.arguments, check_trace=False)
        return torch.jit.freeze(traced.eval())
