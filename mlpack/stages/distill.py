"""distill: a pruned model, or a smaller one of the user's, learns to answer as the original does and as labels say."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, field_validator

from mlpack.core.loader import Loader
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.core.user_code import absolute, find_reference, source_sha256
from mlpack.errors import ModelError, UsageError
from mlpack.stages.torch_imports import imports_of
from mlpack.training.options import Training

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target
    from mlpack.datasets.rows import RowDataset
    from mlpack.stages.distill_objective import Objective
    from mlpack.training.history import History

ALPHA = 0.5
"""Share of the labels where the training rows have some and nobody says otherwise."""
_MODULE = "hand in the module: file.py:function, a state dict with --factory, or a Hugging Face folder"
_OF_TEACHER = ("temperature", "outputs", "hidden")
_OF_HIDDEN = ("hidden_weight", "hidden_loss")


class Distill(Training, Stage):
    """Train the model that it is given, most often a pruned one, with the original as its teacher.

    With labels the loss is `alpha` times theirs (cross entropy for classes, squared error for numbers) and the rest
    the teacher's (Kullback-Leibler divergence of softened classes, squared error of numbers); without labels it is the
    teacher's alone. `student` trains a module of the user's instead, which has to take and give what the original does.
    A seeded part of the training rows is held out to stop early and to keep the best weights. Parameters with
    requires_grad off stay as they are.
    """

    name: ClassVar[str] = "distill"
    accepts: ClassVar[tuple[Format, ...]] = ("torch",)
    gives: ClassVar[Format | None] = "torch"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.training", "mlpack.stages.distill_objective", "mlpack.stages.distill_hidden",
        "mlpack.stages.distill_student", "mlpack.stages.samples", "mlpack.backends.torch_changed",
        "mlpack.backends.torch_loader", "mlpack.backends.torch_modes", "mlpack.backends.torch_surgery",
        "mlpack.core.weights", "mlpack.datasets.spool",
    )  # fmt: skip
    set_by: ClassVar[str] = "distill"
    keyed_by_target: ClassVar[bool] = False
    keyed_by_baseline: ClassVar[bool] = True
    keyed_by_threads: ClassVar[bool] = True

    alpha: float | None = Field(
        default=None, ge=0, le=1, description=f"share of the labels beside the teacher; default: {ALPHA}, 0 without"
    )
    temperature: float = Field(default=2.0, gt=0, description="by which scores of classes are divided")
    outputs: Literal["auto", "logits", "probabilities", "numbers"] = Field(
        default="auto",
        description="what the teacher's outputs are compared as; auto: tables of several columns as scores of classes",
    )
    output: str | None = Field(default=None, description="the output that the labels belong to")
    hidden: Literal["none", "auto"] | tuple[str, ...] = Field(
        default="none",
        description="modules whose outputs are matched: paths, or student=teacher; auto: layers in lists, else parts",
    )
    hidden_loss: Literal["mse", "cosine"] = Field(default="mse", description="how hidden states are compared")
    hidden_weight: float = Field(default=1.0, gt=0, description="of the hidden states, beside the teacher's answers")
    student: str | None = Field(default=None, description="file.py:function that makes a smaller module to train")

    @field_validator("student")
    @classmethod
    def _there(cls, reference: str | None) -> str | None:
        if reference is not None:
            find_reference(reference, "student", ModelError)
        return reference

    def keyed(self) -> dict[str, Any]:
        """The student counts by its code; how often a checkpoint is written makes no difference."""
        options = {name: value for name, value in super().keyed().items() if name not in self.of_no_effect}
        if self.student is not None:
            code = source_sha256(find_reference(self.student, "student", ModelError))
            options["student"] = {"reference": absolute(self.student), "sha256": code}
        return options

    def trains(self) -> bool:
        """That is all it does."""
        return True

    def reads(self) -> tuple[Part, ...]:
        """Rows to learn from, which nothing is judged on."""
        return ("train",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def clash(self) -> str | None:
        """What only a teacher's answers, or hidden states, are compared by, where there is none of it."""
        set_apart = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        without = [name for name in _OF_TEACHER if name in set_apart]
        if self.alpha == 1 and without:
            return f"{without[0]} is for what the teacher answers, and alpha: 1 asks the labels alone"
        without = [name for name in _OF_HIDDEN if name in set_apart]
        if self.hidden == "none" and without:
            return f"{without[0]} is for hidden states, and hidden: none compares none"
        return None

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """This one.

        Raises:
            ModelError: the model has no module that could learn.
        """
        del target
        fixed = Loader.read(model.path).unchangeable
        if fixed is not None and self.student is None:
            raise ModelError(f"distill: there is no module that could learn: {fixed}", _MODULE)
        return (self,)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Train, keep the best weights, write them beside the code that makes the module.

        Raises:
            UsageError: there are no training rows, or there is nothing to learn.
            ModelError: the model has no module, or the student does not fit the original.
            DataError: labels do not fit, or the rows are too few.
            StageFailed: the training diverges.
        """
        assert model is not None
        assert job.baseline is not None
        from mlpack.backends.torch_runner import threads
        from mlpack.core.backend_options import BackendOptions

        rows = job.dataset("train")
        if rows is None:
            raise UsageError("distill has nothing to learn from", "give training data: --train FILE.npz")
        alpha = self._alpha(labelled=rows.labelled)
        if self.student is None and alpha == 0 and model.fingerprint() == job.baseline.fingerprint():
            raise UsageError(
                "distill is given the original itself, which has nothing to learn from its own answers",
                "prune it before (--prune 30%), or name a smaller one: --student file.py:function",
            )
        with threads(BackendOptions(threads=job.threads)):
            return self._learnt(model, job, cast("RowDataset", rows), alpha)

    def _alpha(self, *, labelled: bool) -> float:
        if self.alpha and not labelled:
            raise UsageError(
                f"distill.alpha is {self.alpha:g}, and the training rows have no labels", "leave it out, or add labels"
            )
        return self.alpha if self.alpha is not None else ALPHA if labelled else 0.0

    def _learnt(self, model: Model, job: Job, rows: RowDataset, alpha: float) -> Outcome:
        import torch

        from mlpack.backends.torch_changed import save_changed
        from mlpack.stages.distill_objective import Objective
        from mlpack.stages.distill_student import given, own, write_own
        from mlpack.stages.samples import static_batch
        from mlpack.training.loop import train

        assert job.baseline is not None
        fixed = not model.dynamic_batch
        options = self.model_copy(update={"batch": static_batch(model)}) if fixed else self
        job.say("loading teacher and student")
        learner = given(model, job.baseline) if self.student is None else own(self.student, job)
        # The maps of hidden states are drawn.
        torch.manual_seed(job.seed)
        objective = Objective(job.baseline, learner, options, alpha, rows)

        def kept(out: Path) -> Model:
            return save_changed(model, learner.inner, out) if self.student is None else write_own(learner.inner, job)

        job.say("trying whether what is learnt can be kept")
        with tempfile.TemporaryDirectory(dir=job.out.parent) as folder:
            kept(Path(folder))
        # Writing takes it off the device.
        learner.to(job.baseline.backend_options.device)
        history = train(
            objective.learner,
            objective.loss,
            rows,
            options,
            unfinished=job.unfinished,
            seed=job.seed,
            say=job.say,
            right=objective.right,
            fixed=fixed,
        )
        job.say("writing the trained model")
        return Outcome(model=kept(job.out), report=_report(history, objective, alpha))


def _report(history: History, objective: Objective, alpha: float) -> Report:
    first, best = history.rows[0], next(row for row in history.rows if row["step"] == history.best_step)
    metrics = {
        "stopped": history.stopped,
        "steps": history.steps,
        "best_step": history.best_step,
        "seconds": history.seconds,
        "rows": history.learnt,
        "rows_held_out": history.held_out,
        "batch_norm": history.batch_norm,
        "alpha": alpha,
        "right_is": objective.right_is,
        "held_out_loss": [first["held_out_loss"], best["held_out_loss"]],
        "held_out_right": [first["held_out_right"], best["held_out_right"]],
        "hidden": list(objective.matched),
        **objective.parameters,
    }
    return Report(metrics=metrics, tables={"history": history.rows})
