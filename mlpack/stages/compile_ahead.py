"""compile_ahead: a torch model becomes an AOTInductor package, kernels for this CPU that need torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mlpack.core.machine import NO_CPP_COMPILER, cpp_compiler
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import MissingLibrary
from mlpack.stages.torch_imports import imports_of
from mlpack.stages.torch_numerics import Numerics, elsewhere, proposed

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target
    from mlpack.stages.torch_program import Program

Weights = Literal["constants", "given"]
_ENTRY = "model.pt2"


class CompileAhead(Stage):
    """Compile with torch's AOTInductor: the module is exported, and its kernels are compiled for this machine's CPU.

    One package answers every batch size. It runs beside the original on real rows, one at a time and together; in
    float32 an output whose relative L2 difference is over `tolerance` is an error. bf16 is torch's autocast.
    """

    name: ClassVar[str] = "compile_ahead"
    accepts: ClassVar[tuple[Format, ...]] = ("torch",)
    gives: ClassVar[Format | None] = "aotinductor"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.stages.same_answers", "mlpack.stages.torch_program",
        "mlpack.backends.torch_loader", "mlpack.backends.torch_modes", "mlpack.backends.torch_surgery",
    )  # fmt: skip

    numerics: Numerics = Field(default="auto", description="auto: fp32, and bf16 where the CPU has it")
    tolerance: float = Field(default=1e-3, gt=0, description="largest relative L2 difference of an output in fp32")

    weights: Weights = Field(
        default="constants", description="constants: laid out for the kernels once; given: as they are in the module"
    )

    def reads(self) -> tuple[Part, ...]:
        """Real rows to verify on."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def refusal(self, target: Target) -> str | None:
        """It compiles for this CPU alone."""
        return elsewhere(target)

    def lacks(self) -> str | None:
        """A C++ compiler."""
        return None if cpp_compiler() else ": ".join(NO_CPP_COMPILER)

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """One package for each kind of numerics."""
        return tuple(self.model_copy(update={"numerics": each}) for each in proposed(self.numerics, model, target))

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Export, compile, verify.

        Raises:
            MissingLibrary: there is no C++ compiler.
            StageFailed: torch cannot export or compile the model, or the package answers differently.
        """
        assert model is not None
        if cpp_compiler() is None:
            raise MissingLibrary(*NO_CPP_COMPILER)
        from mlpack.stages.same_answers import differences
        from mlpack.stages.torch_program import Program

        program = Program(model, job, self.numerics)
        job.say("compiling ahead of time")
        _compile(program, job.out / _ENTRY, self.weights)
        made = program.made(job, _ENTRY, "aotinductor")
        job.say("verifying the package against the original")
        allowed = self.tolerance if self.numerics == "fp32" else None
        worst = differences(model, made, "aotinductor", program.rows, job, allowed)
        metrics = {"verified_on": program.rows_are, "differences": worst, "share": made.numerics_share}
        return Outcome(model=made, report=Report(metrics=metrics))


def _compile(program: Program, package: Path, weights: Weights) -> None:
    import os
    import tempfile

    import torch

    from mlpack.backends.aotinductor import ISA
    from mlpack.core.machine import isa
    from mlpack.stages.torch_program import refusing

    told = {
        # Constants are laid out for the kernels, and their casts are done, once.
        "freezing": weights == "constants",
        # As many threads as the session has, not as many as there were here.
        "cpp.dynamic_threads": True,
        # Precompiled headers serve many compilations. For one they take longer than they save, and 300 MB.
        "aot_inductor.precompile_headers": False,
        "aot_inductor.metadata": {ISA: " ".join(isa())},
    }
    with (
        tempfile.TemporaryDirectory(dir=package.parent.parent) as folder,
        torch.no_grad(),
        refusing("compile"),
    ):
        # Sources and objects: of no use to anybody once they are in the package.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        exported = torch.export.export(program.module, program.arguments, dynamic_shapes=(program.dynamic_shapes(),))
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - torch's own name
            exported, package_path=str(package), inductor_configs=told
        )
