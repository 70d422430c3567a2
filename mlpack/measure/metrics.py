"""The table of metrics: what each keeps of a sample, and how the kept rows become one number."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlpack.errors import DataError, unknown
from mlpack.measure import scores, user_metric
from mlpack.measure.scores import Kept, agreement_scores, join, nonfinite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlpack.core.model import TensorSpec
    from mlpack.measure.limits import Limit

__all__ = ["Kept", "Kind", "Metric", "agreement_scores", "choose_metric_name", "join", "metric", "nonfinite"]

Kind = Literal["proportion", "mean", "set"]
_WIDTHLESS = 2
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Metric:
    """How right a model is on labelled samples.

    `kind` says what an interval can be made of: `proportion` has a 0 or 1 per sample, `mean` a score per
    sample, `set` needs the whole set. `percent` metrics are printed as percent and points. `best` is the score that
    no sample can beat, where there is one. A user's function shows its kind by what it returns: `settled` tells.
    """

    name: str
    higher_is_better: bool
    kind: Kind
    percent: bool
    _keep: Callable[[Mapping[str, np.ndarray], np.ndarray | None], Kept]
    _reduce: Callable[[Mapping[str, np.ndarray]], float]
    best: float | None = None
    _user: bool = False

    def keep(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Kept:
        """What is stored of each sample of a batch, first axis samples; `join` puts batches together.

        Raises:
            DataError: labels or outputs do not fit this metric, or the user's function raised.
        """
        return self._keep(outputs, labels)

    def reduce(self, kept: Mapping[str, np.ndarray]) -> float:
        """The metric over the kept rows; NaN where it is undefined on them."""
        return self._reduce(kept)

    def scores(self, kept: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Scores per sample [n] as float64 for a proportion or mean, None for a set."""
        return kept["score"].astype(np.float64) if "score" in kept else None

    def worsened(self, value: float, limit: Limit) -> float:
        """The worst value that the limit allows where the original has this one."""
        allowed = limit.absolute(value, self)
        return value - allowed if self.higher_is_better else value + allowed

    def worse(self, value: float, other: float) -> bool:
        """Whether the value is worse than the other, by more than rounding."""
        margin = _ROUNDING * max(abs(value), abs(other))
        return value < other - margin if self.higher_is_better else value > other + margin

    def settled(self, *kept: Mapping[str, np.ndarray]) -> Metric:
        """This metric with the kind that its kept rows show; a proportion is printed as percent."""
        if not self._user:
            return self
        if not all("score" in each for each in kept):
            return dataclasses.replace(self, kind="set")
        if all(np.isin(each["score"], (0, 1)).all() for each in kept) and self.higher_is_better:
            return dataclasses.replace(self, kind="proportion", percent=True)
        return dataclasses.replace(self, kind="mean")


@dataclass(frozen=True)
class _Row:
    higher_is_better: bool
    kind: Kind
    percent: bool
    best: float | None
    keep: Callable[[Mapping[str, np.ndarray], np.ndarray, str | None], Kept]
    reduce: Callable[[Mapping[str, np.ndarray]], float]


_TABLE = {
    "top1": _Row(True, "proportion", True, 1.0, partial(scores.right_within, top=1), scores.mean),
    "top5": _Row(True, "proportion", True, 1.0, partial(scores.right_within, top=5), scores.mean),
    "f1": _Row(True, "set", True, None, scores.predicted_classes, scores.f1_macro),
    "mse": _Row(False, "mean", False, 0.0, partial(scores.distances, power=2), scores.mean),
    "mae": _Row(False, "mean", False, 0.0, partial(scores.distances, power=1), scores.mean),
    "spearman": _Row(True, "set", False, None, scores.pairs, scores.spearman),
    "pearson": _Row(True, "set", False, None, scores.pairs, scores.pearson),
    "perplexity": _Row(False, "set", False, None, scores.log_losses, scores.perplexity),
}


def names() -> tuple[str, ...]:
    """The names that `metric` knows, apart from `file.py:function`."""
    return (*_TABLE, "agreement")


def check_name(name: str) -> None:
    """Whether there can be a metric of this name; runs nothing of the user's.

    Raises:
        UsageError: no such name (the hint has the nearest right spelling).
        DataError: the user's file is not there.
    """
    if user_metric.is_reference(name):
        user_metric.user_code_digest(name)
    elif name not in names():
        raise unknown("metric", name, names())


def metric(name: str | None, *, labels: bool, output: str | None) -> Metric:
    """The metric of this name, or `file.py:function`; without labels and name it is agreement.

    `labels` says whether the data has any, `output` which output to judge where several fit.

    Raises:
        UsageError: no such name (the hint has the nearest right spelling).
        DataError: the metric needs labels, or the user's file cannot be used.
    """
    if name is None and labels:
        raise DataError("the data has labels and no metric is named", "pass --metric top1")
    if name is None or name == "agreement":
        return Metric(
            "agreement", True, "proportion", True,
            lambda outputs, _: scores.predictions(outputs, output), scores.mean,
        )  # fmt: skip
    if user_metric.is_reference(name):
        function = user_metric.load(name)
        percent = bool(getattr(function.function, "percent", False))
        return Metric(name, function.higher_is_better, "set", percent, function.keep, function.reduce, _user=True)
    if name not in _TABLE:
        raise unknown("metric", name, names())
    if not labels:
        raise DataError(f"metric {name} needs labels and the data has none", "--metric agreement")
    row = _TABLE[name]

    def keep(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Kept:
        if labels is None:
            raise DataError(f"metric {name} needs labels and this batch has none", "--metric agreement")
        return row.keep(outputs, labels, output)

    return Metric(name, row.higher_is_better, row.kind, row.percent, keep, row.reduce, row.best)


def choose_metric_name(outputs: Sequence[TensorSpec], labels: np.ndarray) -> str:
    """The default metric: top1 for integer labels and an output with classes, mse for float labels.

    Raises:
        DataError: neither fits.
    """
    classes = any(
        len(spec.dims) == _WIDTHLESS
        and ("float" in spec.dtype)
        and (isinstance(spec.dims[1], str) or spec.dims[1] >= _WIDTHLESS)
        for spec in outputs
    )
    per_sample = labels.size == len(labels)
    if labels.dtype.kind in "iub" and classes and per_sample:
        return "top1"
    if labels.dtype.kind == "f":
        if classes and per_sample and bool((labels == np.round(labels)).all()):
            raise DataError("labels are floats that look like class numbers: no metric can be chosen",
                            "pass --metric top1 or --metric mse")  # fmt: skip
        return "mse"
    shapes = ", ".join(str(spec) for spec in outputs) or "none"
    raise DataError(
        f"no default metric for labels {labels.dtype} {list(labels.shape)} and outputs {shapes}",
        "pass --metric NAME, or a function of your own: --metric file.py:function",
    )
