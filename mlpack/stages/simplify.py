"""simplify: onnxsim's graph, kept only when it really is simpler and answers the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mlpack.core.backend_options import BackendOptions
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target

_COMPARED_ROWS = 8
_WITHOUT = "leave --set simplify.fusions out"


class Simplify(Stage):
    """Fold constants and drop no-ops with onnxsim; a larger graph or another answer keeps the original.

    Models with external data are handed on as they are: onnxsim would load them whole, twice. With `fusions` attention
    and what stands around it become operators of onnxruntime's own in place of that; the table `fused` counts them, no
    other backend runs the model, and a graph in which no attention is fused is an error.
    """

    name: ClassVar[str] = "simplify"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx",)
    gives: ClassVar[Format | None] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxsim", "onnxscript", "onnxruntime")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.stages.module_names", "mlpack.stages.simplify_fusions",
    )  # fmt: skip
    keyed_by_target: ClassVar[bool] = False

    tolerance: float = Field(default=1e-4, gt=0, description="largest relative L2 difference of an output")
    fusions: Literal["none", "attention"] = Field(
        default="none", description="attention: fuse it and what is around it, for onnxruntime alone"
    )

    def reads(self) -> tuple[Part, ...]:
        """Rows to compare the two graphs on."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """The simplifier imports torch, for tools of its own that are not used here."""
        del model
        return ("torch",)

    def refusal(self, target: Target) -> str | None:
        """TensorRT has none of the operators that fusions make."""
        if self.fusions != "none" and target.kind == "cuda":
            return f"TensorRT, which builds for {target.title}, has none of the operators that fusions make"
        return None

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Simplify, compare, keep the better one; the report says which and why. Or fuse, where that is asked for.

        Raises:
            StageFailed: there is nothing to fuse, or the fused graph answers differently.
        """
        assert model is not None
        return self._simplified(model, job) if self.fusions == "none" else self._fused(model, job)

    def _simplified(self, model: Model, job: Job) -> Outcome:
        import onnx
        import onnxsim

        from mlpack.core.external_data import load_whole
        from mlpack.stages.module_names import keep_module_names

        if len(list(model.files())) > 1:
            return Outcome(model=model, report=Report(metrics={"kept": "original", "why": "it has external data"}))
        job.say("simplifying the graph")
        before = load_whole(model.entry_path)
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
        worst = _difference(model, simplified, job)
        if not worst <= self.tolerance:
            (job.out / model.entry).unlink()
            why = f"the simplified graph answers differently ({worst:.2g})"
            return Outcome(model=model, report=Report(metrics={**counts, "kept": "original", "why": why}))
        return Outcome(model=simplified, report=Report(metrics={**counts, "kept": "simplified", "difference": worst}))

    def _fused(self, model: Model, job: Job) -> Outcome:
        from mlpack.stages.simplify_fusions import SERVED_BY, write_fused

        if model.on_disk:
            raise StageFailed("what fuses attention would hold all weights, and these are too many for it", _WITHOUT)
        job.say("fusing attention")
        counts = write_fused(model, job.out)
        if not counts:
            raise StageFailed("no attention of this graph has a form that can be fused", _WITHOUT)
        fused = model.model_copy(update={"path": job.out, "only": SERVED_BY})
        worst = _difference(model, fused, job)
        if not worst <= self.tolerance:
            raise StageFailed(
                f"the fused graph answers differently: relative difference {worst:.2g} (allowed {self.tolerance:g})",
                _WITHOUT,
            )
        rows = [{"operator": operator, "nodes": nodes} for operator, nodes in counts.items()]
        metrics = {"kept": "fused", "difference": worst}
        return Outcome(model=fused, report=Report(metrics=metrics, tables={"fused": rows}))


def _difference(one: Model, other: Model, job: Job) -> float:
    """The largest relative L2 difference of an output between two graphs."""
    from mlpack.stages import samples

    example, _ = samples.rows(one, job, "calibration", _COMPARED_ROWS)
    options = BackendOptions(threads=job.threads)
    backend = job.backend("onnxruntime")
    with backend.open(one, job.target, options) as first, backend.open(other, job.target, options) as second:
        expected, got = first(example), second(example)
    return max(samples.difference(expected[name], got[name])[1] for name in expected)
