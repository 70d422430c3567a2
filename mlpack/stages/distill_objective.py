"""What a student is trained towards, batch by batch: labels, the teacher's answers, its hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_device import placed
from mlpack.backends.torch_runner import to_tensor
from mlpack.core.backend_options import BackendOptions
from mlpack.core.user_code import find_reference, running
from mlpack.errors import DataError, ModelError
from mlpack.stages.distill_hidden import States, pairs
from mlpack.training.losses import (
    IGNORED_LABEL,
    Projections,
    answers_of,
    check_classes,
    labelled_output,
    to_hidden,
    to_labels,
    to_teacher,
)

if TYPE_CHECKING:
    from typing import Literal

    import numpy as np

    from mlpack.backends.torch_loader import Flat
    from mlpack.core.dataset import Batch
    from mlpack.core.model import Model
    from mlpack.datasets.rows import RowDataset
    from mlpack.stages.distill import Distill
    from mlpack.training.losses import Answers


class _Learner(torch.nn.Module):  # type: ignore[misc] # torch is opaque to mypy here
    """All that learns: the student, and the maps of its hidden states."""

    def __init__(self, student: Flat) -> None:
        super().__init__()
        self.student = student
        self.projections = Projections()


class Objective:
    """The loss of a student, and the share of a batch that it gets right.

    Raises:
        ModelError: the student does not take or give what the original does.
        DataError: the labels fit no output.
    """

    def __init__(self, original: Model, student: Flat, options: Distill, alpha: float, rows: RowDataset) -> None:
        self._options, self._alpha = options, alpha
        self._device = torch.device(original.backend_options.device)
        self._teacher = placed(original, BackendOptions(device=original.backend_options.device))
        self.learner = _Learner(student.to(self._device))
        self.learner.eval()
        self._inputs = [spec.name for spec in original.inputs]
        self._outputs = [spec.name for spec in original.outputs]
        example = next(iter(rows.batches(options.batch)))
        with torch.no_grad():
            wanted = self._ask(self._teacher, example)
            given = self._tried(original, example)
        _check_fits(given, wanted)
        self._answers = answers_of(wanted, options.outputs)
        self._labelled: str | None = None
        self._labels_are: Answers = "numbers"
        if alpha > 0:
            if example.labels is None:
                raise DataError("the training data has labels in some batches only", "give every batch its labels")
            self._labelled, kind = labelled_output(wanted, example.labels, options.output, options.set_by)
            if options.outputs == "auto":
                self._answers[self._labelled] = kind
            # Labels say themselves whether they are classes: a teacher's scores can be matched as numbers beside them.
            told = self._answers[self._labelled]
            self._labels_are = told if (told == "numbers") == (kind == "numbers") else kind
        self.matched = pairs(student.inner, self._teacher.inner, options.hidden)
        self._states = States(student.inner, [one for one, _ in self.matched])
        self._wanted_states = States(self._teacher.inner, [two for _, two in self.matched])
        self._add_projections(example)
        self._last: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
        self._scored = self._labelled
        if self._labels_are == "numbers":
            classes = [name for name, kind in self._answers.items() if kind != "numbers" and name != self._labelled]
            # Where labels are all that counts the teacher is not asked.
            self._scored = classes[0] if classes and alpha < 1 else None

    @property
    def right_is(self) -> Literal["labels", "teacher"] | None:
        """What a right answer agrees with; None where answers are numbers, which are seldom equal."""
        if self._scored is None:
            return None
        return "labels" if self._scored == self._labelled else "teacher"

    @property
    def parameters(self) -> dict[str, int]:
        """How many numbers teacher and student have."""
        two = {"teacher_parameters": self._teacher, "student_parameters": self.learner.student}
        return {name: sum(each.numel() for each in module.parameters()) for name, module in two.items()}

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean over the batch's rows."""
        given = self._ask(self.learner.student, batch)
        wanted: dict[str, torch.Tensor] = {}
        terms: list[torch.Tensor] = []
        if self._labelled is not None:
            assert batch.labels is not None
            output = given[self._labelled]
            if self._labels_are != "numbers":
                check_classes(batch.labels, output.shape[-1], batch.rows)
            terms.append(self._alpha * to_labels(output, self._tensor(batch.labels), self._labels_are))
        if self._alpha < 1:
            with torch.no_grad():
                wanted = self._ask(self._teacher, batch)
            taught = [
                to_teacher(given[name], wanted[name], kind, self._options.temperature)
                for name, kind in self._answers.items()
            ]
            terms.append((1 - self._alpha) * torch.stack(taught).mean())
            if self.matched:
                terms.append((1 - self._alpha) * self._options.hidden_weight * self._hidden())
        self._last = given, wanted
        return torch.stack(terms).sum()

    def right(self, batch: Batch) -> float | None:
        """The share of the batch that was just answered as the labels, or as the teacher, have it."""
        if self._scored is None:
            return None
        given, wanted = self._last
        answer = given[self._scored].argmax(-1)
        if self._scored != self._labelled:
            return float((answer == wanted[self._scored].argmax(-1)).float().mean())
        assert batch.labels is not None
        labels = self._tensor(batch.labels).reshape(answer.shape)
        counted = labels != IGNORED_LABEL
        return float((answer == labels)[counted].float().mean()) if bool(counted.any()) else 1.0

    def _hidden(self) -> torch.Tensor:
        each = [
            to_hidden(
                self.learner.projections(one, self._states[one]), self._wanted_states[two], self._options.hidden_loss
            )
            for one, two in self.matched
        ]
        return torch.stack(each).mean()

    def _add_projections(self, example: Batch) -> None:
        if not self.matched:
            return
        with torch.no_grad():
            self._ask(self._teacher, example)
            self._ask(self.learner.student, example)
        for one, two in self.matched:
            self.learner.projections.add(one, self._states[one], self._wanted_states[two])

    def _ask(self, module: Flat, batch: Batch) -> dict[str, torch.Tensor]:
        tensors = [self._tensor(batch.inputs[name]) for name in self._inputs]
        found: dict[str, torch.Tensor] = module.named(*tensors)
        return {name: found[name] for name in self._outputs if name in found}

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return to_tensor(array).to(self._device)

    def _tried(self, original: Model, example: Batch) -> dict[str, torch.Tensor]:
        """What the student answers; what it raises is told as its code's."""
        takes = ", ".join(map(str, original.inputs))
        if self._options.student is None:
            return self._ask(self.learner.student, example)
        code = find_reference(self._options.student, "student", ModelError)
        with running(code, f"forward({takes}) of the student", ModelError, "let it take what the original takes"):
            return self._ask(self.learner.student, example)


def _check_fits(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    ours, theirs = ({name: list(each.shape) for name, each in those.items()} for those in (given, wanted))
    if any(ours.get(name) != shape for name, shape in theirs.items()):
        raise ModelError(
            f"the student gives {_told(ours)}, and the original {_told(theirs)}",
            "let its forward() give the same outputs under the same names",
        )


def _told(shapes: dict[str, list[int]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
