"""What a module is trained towards: the labels, a teacher's answers, a teacher's hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mlpack.errors import DataError, ModelError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Answers = Literal["logits", "probabilities", "numbers"]
"""What an output holds: scores of classes, their probabilities, or numbers that mean themselves."""
HiddenLoss = Literal["mse", "cosine"]
IGNORED_LABEL = -100
"""A label of a place that is not scored, as in torch's cross entropy."""

_LEAST = 1e-8
_SUM_TO_ONE = 1e-3
_CLASSES = 2
_TABLE = 2


def labelled_output(
    outputs: Mapping[str, Tensor], labels: np.ndarray, named: str | None, set_by: str = "distill"
) -> tuple[str, Answers]:
    """The output that the labels belong to, and whether it holds classes or numbers.

    Whole numbers beside an output with a column for each class are class numbers, of a sample or of each of its
    places; labels of an output's own shape are what it should be. So they are read as the metrics read them. `set_by`
    is what comes before the names of options in --set.

    Raises:
        UsageError: there is no output of this name.
        DataError: the labels fit none, or several.
    """
    if named is not None and named not in outputs:
        raise unknown("output", named, outputs)
    looked_at = outputs if named is None else {named: outputs[named]}
    shape = _plain(labels.shape)
    classes = [name for name, each in looked_at.items() if _has_classes(each, shape)] if _is_whole(labels) else []
    numbers = [name for name, each in looked_at.items() if each.is_floating_point() and _plain(each.shape) == shape]
    fitting = classes or numbers
    if len(fitting) > 1:
        raise DataError(f"the labels fit several outputs: {', '.join(fitting)}", f"--set {set_by}.output={fitting[0]}")
    if not fitting:
        have = ", ".join(f"{name} {list(each.shape)}" for name, each in looked_at.items())
        raise DataError(
            f"the training labels {labels.dtype} {list(labels.shape)} fit no output of the model: {have}",
            f"learn from the teacher alone: --set {set_by}.alpha=0",
        )
    (name,) = fitting
    if not classes:
        return name, "numbers"
    return name, "probabilities" if _are_probabilities(outputs[name]) else "logits"


def check_classes(labels: np.ndarray, columns: int, rows: np.ndarray) -> None:
    """Whether each label is the number of a column, or the one that is not scored; `rows` are their positions.

    Raises:
        DataError: one is neither.
    """
    numbers = labels.astype(np.int64)
    wrong = np.argwhere((numbers != IGNORED_LABEL) & ((numbers < 0) | (numbers >= columns)))
    if len(wrong):
        first = tuple(wrong[0])
        raise DataError(
            f"training row {rows[first[0]]} has the label {labels[first]}, and the output has {columns} columns",
            f"number classes from 0 to {columns - 1}; {IGNORED_LABEL} is not scored",
        )


def answers_of(outputs: Mapping[str, Tensor], wanted: Answers | Literal["auto"]) -> dict[str, Answers]:
    """What each float output holds. `auto`: a table of several columns are scores of classes, as for agreement."""
    found: dict[str, Answers] = {}
    for name, each in outputs.items():
        if not each.is_floating_point():
            continue
        if wanted != "auto":
            found[name] = wanted
        elif each.ndim == _TABLE and each.shape[1] >= _CLASSES:
            found[name] = "probabilities" if _are_probabilities(each) else "logits"
        else:
            found[name] = "numbers"
    if not found:
        raise ModelError("no output of the model is of floats: nothing can be learnt from it", "train on labels alone")
    return found


def to_labels(output: Tensor, labels: Tensor, answers: Answers) -> Tensor:
    """Cross entropy of classes (a label of -100 is not scored), or the squared distance of numbers."""
    if answers == "numbers":
        return _distance(output, labels.to(output.dtype).reshape(output.shape))
    scores = _logits(output, answers)
    numbers = labels.reshape(-1).long()
    total = functional.cross_entropy(
        scores.reshape(-1, scores.shape[-1]), numbers, ignore_index=IGNORED_LABEL, reduction="sum"
    )
    # Of a batch in which nothing is scored the mean would be no number.
    return total / (numbers != IGNORED_LABEL).sum().clamp_min(1)


def to_teacher(output: Tensor, wanted: Tensor, answers: Answers, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softened classes, or the squared distance from its numbers.

    The gradient of softened classes is smaller by the temperature's square, which is put back.
    """
    if answers == "numbers":
        return _distance(output, wanted)
    columns = output.shape[-1]
    ours = functional.log_softmax(_logits(output, answers).reshape(-1, columns) / temperature, dim=-1)
    theirs = functional.log_softmax(_logits(wanted, answers).reshape(-1, columns) / temperature, dim=-1)
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def to_hidden(state: Tensor, wanted: Tensor, loss: HiddenLoss) -> Tensor:
    """Squared distance, or one less the cosine of the angle between each sample's states."""
    if loss == "mse":
        return _distance(state, wanted)
    return 1 - functional.cosine_similarity(state.flatten(1), wanted.flatten(1), dim=1).mean()


class Projections(torch.nn.Module):  # type: ignore[misc] # torch is opaque to mypy here
    """Learnt linear maps of hidden states to the width of the teacher's, where the two differ in width."""

    def __init__(self) -> None:
        super().__init__()
        self._axes: dict[str, int] = {}
        self._maps = torch.nn.ModuleDict()

    def add(self, name: str, state: Tensor, wanted: Tensor) -> None:
        """A map for the states of this name.

        Raises:
            ModelError: they differ in more than their width.
        """
        differing = [at for at, (one, two) in enumerate(zip(state.shape, wanted.shape, strict=False)) if one != two]
        if state.ndim != wanted.ndim or len(differing) > 1 or 0 in differing:
            raise ModelError(
                f"module {name!r} gives {list(state.shape)}, and the teacher's {list(wanted.shape)}: more than the "
                "width differs",
                "name others: --set distill.hidden=[…], or leave it out",
            )
        if differing:
            (axis,) = differing
            self._axes[name] = axis
            self._maps[_key(name)] = torch.nn.Linear(state.shape[axis], wanted.shape[axis]).to(state.device)

    def forward(self, name: str, state: Tensor) -> Tensor:
        """The state in the teacher's width."""
        if name not in self._axes:
            return state
        mapped: Tensor = self._maps[_key(name)](state.movedim(self._axes[name], -1))
        return mapped.movedim(-1, self._axes[name])


def _key(name: str) -> str:
    """A ModuleDict takes no dots."""
    return name.replace(".", "/")


def _distance(output: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference, relative to the mean square of what is wanted: of any scale it weighs the same."""
    return functional.mse_loss(output, wanted) / wanted.square().mean().clamp_min(_LEAST)


def _logits(output: Tensor, answers: Answers) -> Tensor:
    """The logarithm of probabilities are scores that have them."""
    return output.clamp_min(_LEAST).log() if answers == "probabilities" else output


def _are_probabilities(output: Tensor) -> bool:
    sums = output.sum(-1)
    return bool((output >= 0).all()) and bool(((sums - 1).abs() <= _SUM_TO_ONE).all())


def _has_classes(output: Tensor, labels: tuple[int, ...]) -> bool:
    return output.is_floating_point() and output.shape[-1] >= _CLASSES and _plain(output.shape[:-1]) == labels


def _is_whole(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iub"


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    """Without axes of length 1 after the first: [n] and [n, 1] hold the same."""
    return (*shape[:1], *(size for size in shape[1:] if size != 1))
