"""The rows that tell prune what a unit is worth, and whose answers count on them: the labels', or the model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from mlpack.backends.torch_loader import Flat
from mlpack.backends.torch_runner import to_tensor
from mlpack.errors import DataError
from mlpack.pruning.fisher import given_labels, own_answers
from mlpack.stages import samples
from mlpack.training.losses import IGNORED_LABEL, answers_of, labelled_output

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from mlpack.core.dataset import Part
    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.pruning.fisher import Answers, Likelihood
    from mlpack.pruning.running import Call
    from mlpack.stages.prune import Prune

_BATCH = 16
# Of fewer rows a mean says less than the one that the module was trained with.
_FEWEST_DESCRIBING = 32
_OWN = "the model's own answers"


class Rows:
    """Rows that modules are run on, in whole batches for a model whose batch is fixed.

    Training rows where they have labels that fit an output, whose likelihood counts then; else calibration rows, for
    which the likelihood of the model's own answers does. `by` says which of them, and why where labels are left.
    """

    def __init__(self, module: nn.Module, model: Model, stage: Prune, job: Job) -> None:
        self._inputs, self._outputs = ([spec.name for spec in specs] for specs in (model.inputs, model.outputs))
        self._free = model.dynamic_batch
        self._batch = _BATCH if self._free else samples.static_batch(model)
        self.by = _OWN
        train = job.dataset("train")
        if train is not None and train.labelled:
            labels = self._read(model, job, "train", stage.samples)
            try:
                at, kind = self._labelled(module, labels, stage.output)
            except DataError as error:
                self.by = f"{_OWN}, as {error.message}"
            else:
                assert labels is not None
                known = to_tensor(labels)
                self.by = "labels"
                self._told: Callable[[int, int], Likelihood] = lambda start, end: given_labels(
                    known[start:end], at, kind
                )
                return
        self._read(model, job, "calibration", stage.samples)
        own = own_answers(job.seed, self._kinds(module, model, job))
        self._told = lambda *_: own

    def first(self, count: int) -> Call:
        """Runs a module on so many rows, on a batch of them where it is fixed."""
        return self._on(0, count if self._free else self._batch)

    @property
    def describe(self) -> bool:
        """Whether they tell the mean and variance of what flows through a module: real rows, some of them at a time."""
        return self.kind == "real" and self._batch > 1 and self.count >= _FEWEST_DESCRIBING

    def batches(self) -> Iterator[tuple[int, Call, Likelihood]]:
        """All rows: how many there are in each batch, what runs a module on it, and the likelihood of its answers."""
        for start in range(0, self.count, self._batch):
            end = min(start + self._batch, self.count)
            yield end - start, self._on(start, end), self._told(start, end)

    def _read(self, model: Model, job: Job, part: Part, count: int) -> np.ndarray | None:
        """Take the rows of this part, or synthetic ones where it does not fill a batch; their labels."""
        size = 1 if self._free else self._batch
        dataset = job.dataset(part)
        batch = None if dataset is None else next(iter(dataset.batches(max(count // size, 1) * size)))
        whole = 0 if batch is None else len(batch) // size * size
        self.kind: Literal["real", "synthetic"] = "real" if whole else "synthetic"
        if batch is not None and whole:
            batch = batch[:whole]
            arrays, labels = batch.inputs, batch.labels
        else:
            arrays, labels = samples.rows(model, job, part, count)[0], None
        self._tensors = tuple(to_tensor(arrays[spec.name]) for spec in model.inputs)
        self.count = len(self._tensors[0])
        return labels

    def _labelled(self, module: nn.Module, labels: np.ndarray | None, output: str | None) -> tuple[int, Answers]:
        """Where the output is that the labels belong to, and what it holds.

        Raises:
            DataError: they belong to none, or the rows that they are of cannot be run.
        """
        if labels is None:
            raise DataError(f"there are fewer training rows than the {self._batch} of the model's batch")
        outputs = self._answers(module)
        name, kind = labelled_output(outputs, labels[: self._batch], output)
        columns = outputs[name].shape[-1]
        outside = labels[(labels != IGNORED_LABEL) & ((labels < 0) | (labels >= columns))]
        if kind != "numbers" and outside.size:
            raise DataError(f"the training label {outside[0]} is none of the {columns} classes of the output {name}")
        return self._outputs.index(name), kind

    def _kinds(self, module: nn.Module, model: Model, job: Job) -> list[Answers]:
        """What each output holds."""
        classes = _classes(model, job)
        if not any(classes):
            return ["numbers"] * len(classes)
        outputs = self._answers(module)
        return [
            answers_of({name: outputs[name].flatten(0, -2)}, "auto")[name] if each else "numbers"
            for name, each in zip(self._outputs, classes, strict=True)
        ]

    def _answers(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """Its outputs by name, of the first batch."""
        with torch.no_grad():
            return dict(zip(self._outputs, self.first(self._batch)(module), strict=True))

    def _on(self, start: int, end: int) -> Call:
        given = tuple(each[start:end] for each in self._tensors)

        def call(module: nn.Module) -> Sequence[torch.Tensor]:
            found: Sequence[torch.Tensor] = Flat(module, self._inputs, self._outputs)(*given)
            return found

        return call


def _classes(model: Model, job: Job) -> list[bool]:
    """Of each output, whether it is of classes: where labels are whole numbers, or by its name."""
    dataset = job.dataset("calibration")
    labels = next(iter(dataset.batches(1))).labels if dataset is not None and dataset.labelled else None
    counted = labels is not None and labels.dtype.kind in "iu"
    return [
        len(spec.dims) > 1
        and spec.dims[-1] != 1
        and spec.dtype.startswith("float")
        and (spec.name.endswith("logits") or (counted and len(model.outputs) == 1))
        for spec in model.outputs
    ]
