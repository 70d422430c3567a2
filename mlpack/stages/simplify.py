"""simplify: onnxsim's graph, kept only when it really is simpler and answers the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mlpack.core.backend_options import BackendOptions
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job

_COMPARED_ROWS = 8


class Simplify(Stage):
    """Fold constants and drop no-ops with onnxsim; a larger graph or another answer keeps the original.

    Models with external data are handed on as they are: onnxsim would load them whole, twice.
    """

    name: ClassVar[str] = "simplify"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx",)
    gives: ClassVar[Format | None] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxsim", "onnxruntime")
    code: ClassVar[tuple[str, ...]] = ("mlpack.stages.samples", "mlpack.stages.module_names")
    keyed_by_target: ClassVar[bool] = False

    tolerance: float = Field(default=1e-4, gt=0, description="largest relative L2 difference of an output")

    def reads(self) -> tuple[Part, ...]:
        """Rows to compare the two graphs on."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """The simplifier imports torch, for tools of its own that are not used here."""
        del model
        return ("torch",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Simplify, compare, keep the better one; the report says which and why."""
        assert model is not None
        import onnx
        import onnxsim

        from mlpack.stages import samples
        from mlpack.stages.module_names import keep_module_names

        if len(list(model.files())) > 1:
            return Outcome(model=model, report=Report(metrics={"kept": "original", "why": "it has external data"}))
        job.say("simplifying the graph")
        before = onnx.load(model.entry_path)
        try:
            after, _ = onnxsim.simplify(before)
        except (RuntimeError, ValueError) as error:
            why = f"onnxsim refuses it: {str(error).splitlines()[0]}"
            return Outcome(model=model, report=Report(metrics={"kept": "original", "why": why}))
        counts = {"nodes_before": len(before.graph.node), "nodes_after": len(after.graph.node)}
        if counts["nodes_after"] >= counts["nodes_before"]:
            why = "the simplified graph has no fewer nodes"
            return Outcome(model=model, report=Report(metrics={**counts, "kept": "original", "why": why}))
        del after.graph.value_info[:]
        keep_module_names(after, before)
        onnx.save(after, job.out / model.entry)
        simplified = model.model_copy(update={"path": job.out})
        example, _ = samples.rows(model, job, "calibration", _COMPARED_ROWS)
        options = BackendOptions(threads=job.threads)
        backend = job.backend("onnxruntime")
        with backend.open(model, job.target, options) as one, backend.open(simplified, job.target, options) as two:
            expected, got = one(example), two(example)
        worst = max(samples.difference(expected[name], got[name])[1] for name in expected)
        if not worst <= self.tolerance:
            (job.out / model.entry).unlink()
            why = f"the simplified graph answers differently ({worst:.2g})"
            return Outcome(model=model, report=Report(metrics={**counts, "kept": "original", "why": why}))
        return Outcome(model=simplified, report=Report(metrics={**counts, "kept": "simplified", "difference": worst}))
