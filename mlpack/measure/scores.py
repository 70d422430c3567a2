"""What a metric keeps of each sample, and how the kept rows become one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlpack.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kept = dict[str, np.ndarray]

# Labels that mean "not scored", as in torch's cross entropy.
IGNORED_LABEL = -100
_PREDICTED_NOTHING = -1
_AGREEING_ERROR = 0.05
_TABLE_AXES = 2


def nonfinite(outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the outputs that hold a NaN or an infinity."""
    return [name for name, array in outputs.items() if is_float(array) and not np.isfinite(array).all()]


def is_float(array: np.ndarray) -> bool:
    """Whether the elements are floating point, bfloat16 (which numpy does not count as such) included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def choose_output(
    outputs: Mapping[str, np.ndarray], output: str | None, need: str, fits: Callable[[np.ndarray], bool]
) -> np.ndarray:
    """The one output that a metric is taken of.

    Raises:
        UsageError: `output` is not the name of one.
        DataError: none fits, or several fit and none is named.
    """
    if output is not None:
        if output not in outputs:
            raise unknown("output", output, outputs)
        if not fits(outputs[output]):
            raise DataError(f"output {_described(output, outputs[output])} does not fit: {need}",
                            "pass another --metric or --output")  # fmt: skip
        return outputs[output]
    fitting = [name for name, array in outputs.items() if fits(array)]
    if not fitting:
        have = ", ".join(_described(name, array) for name, array in outputs.items())
        raise DataError(f"no output fits: {need}; the model gives {have}", "pass another --metric")
    if len(fitting) > 1:
        raise DataError(f"several outputs fit this metric: {', '.join(fitting)}", f"--output {fitting[0]}")
    return outputs[fitting[0]]


def right_within(outputs: Mapping[str, np.ndarray], labels: np.ndarray, output: str | None, top: int) -> Kept:
    """1 where the label is among the `top` highest columns (ties go to the first column), else 0.

    `labels` [n] integers in [0, columns); the output [n, columns] floats.
    """
    scores, wanted = _classes(outputs, labels, output, columns=top + 1)
    own = scores[np.arange(len(wanted)), wanted][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < wanted[:, None]
    ahead = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return {"score": ((ahead < top) & ~np.isnan(scores).any(axis=1)).astype(np.uint8)}


def predicted_classes(outputs: Mapping[str, np.ndarray], labels: np.ndarray, output: str | None) -> Kept:
    """The predicted and the true class of each sample."""
    scores, wanted = _classes(outputs, labels, output, columns=2)
    return {"predicted": argmax(scores), "label": wanted}


def f1_macro(kept: Mapping[str, np.ndarray]) -> float:
    """F1 averaged over the classes that occur among labels or predictions, each class with equal weight."""
    predicted, label = kept["predicted"], kept["label"]
    size = int(max(predicted.max(initial=0), label.max(initial=0))) + 1
    hits = np.bincount(label[predicted == label], minlength=size)
    said = np.bincount(predicted[predicted >= 0], minlength=size)
    total = np.bincount(label, minlength=size) + said
    there = total > 0
    return float(np.mean(2 * hits[there] / total[there])) if there.any() else float("nan")


def distances(outputs: Mapping[str, np.ndarray], labels: np.ndarray, output: str | None, power: int) -> Kept:
    """Mean over a sample's numbers of |output - label| ** power."""
    truth = _finite(labels)
    need = f"one float for each label, {_shape(labels.shape)}"
    chosen = choose_output(
        outputs, output, need, lambda each: is_float(each) and _plain(each.shape) == _plain(labels.shape)
    )
    gap = np.abs(chosen.astype(np.float64).reshape(len(truth), -1) - truth.reshape(len(truth), -1))
    return {"score": (gap**power).mean(axis=1)}


def pairs(outputs: Mapping[str, np.ndarray], labels: np.ndarray, output: str | None) -> Kept:
    """The one number that the model gives for a sample, and the label."""
    truth = _finite(labels)
    if truth.size != len(truth):
        raise DataError(f"a correlation wants one label per sample, got labels {_shape(labels.shape)}",
                        "pass another --metric")  # fmt: skip
    chosen = choose_output(
        outputs, output, "one float per sample", lambda each: is_float(each) and each.size == len(truth)
    )
    return {"predicted": chosen.astype(np.float64).reshape(-1), "label": truth.reshape(-1)}


def pearson(kept: Mapping[str, np.ndarray]) -> float:
    """Correlation; 0 where all predictions are the same, NaN (undefined) where all labels are."""
    predicted, label = kept["predicted"], kept["label"]
    x, y = predicted - predicted.mean(), label - label.mean()
    if not np.ptp(label) > 0:
        return float("nan")
    if not np.ptp(predicted) > 0:
        return 0.0
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))


def spearman(kept: Mapping[str, np.ndarray]) -> float:
    """Correlation of the ranks, equal values sharing their mean rank."""
    return pearson({name: _ranks(kept[name]) for name in ("predicted", "label")})


def log_losses(outputs: Mapping[str, np.ndarray], labels: np.ndarray, output: str | None) -> Kept:
    """Sum of the negative log-likelihoods (nats) of a sample's labels, and how many were scored.

    The output [n, ..., columns] are logits, `labels` [n, ...] integers; position t of the one is scored
    against position t of the other, label -100 is not scored.
    """
    wanted = _integers(labels)
    need = f"float logits {_shape((*labels.shape, 'columns'))} for labels {_shape(labels.shape)}"
    logits = choose_output(
        outputs, output, need,
        lambda each: is_float(each) and each.shape[:-1] == labels.shape and each.shape[-1] > 1,
    ).astype(np.float64)  # fmt: skip
    scored = wanted != IGNORED_LABEL
    _in_range(wanted[scored], logits.shape[-1])
    top = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
    own = np.take_along_axis(logits, np.where(scored, wanted, 0)[..., None], axis=-1)[..., 0]
    loss = np.where(scored, total - own, 0.0).reshape(len(wanted), -1).sum(axis=1)
    return {"nll": loss, "tokens": scored.reshape(len(wanted), -1).sum(axis=1)}


def perplexity(kept: Mapping[str, np.ndarray]) -> float:
    """Exp of the mean negative log-likelihood per token."""
    tokens = kept["tokens"].sum()
    return float(np.exp(kept["nll"].sum() / tokens)) if tokens else float("nan")


def predictions(outputs: Mapping[str, np.ndarray], output: str | None) -> Kept:
    """What agreement compares: the class where an output is [n, columns >= 2], else all its numbers."""
    if output is not None and output not in outputs:
        raise unknown("output", output, outputs)
    chosen = outputs if output is None else {output: outputs[output]}
    per_sample(chosen, None)
    kept: Kept = {}
    for name, array in chosen.items():
        if _is_table(array, len(array)) and array.shape[1] > 1 and is_float(array):
            kept[f"class:{name}"] = argmax(array)
        else:
            kept[f"value:{name}"] = array.astype(np.float32).reshape(len(array), -1)
    return kept


def per_sample(outputs: Mapping[str, np.ndarray], samples: int | None) -> int:
    """The number of samples in these outputs, which all have them as their first axis.

    Raises:
        DataError: one of them has not.
    """
    for name, array in outputs.items():
        if not array.shape or len(array) != (len(array) if samples is None else samples):
            raise DataError(f"output {_described(name, array)} is not one row per sample",
                            "judge another one with --output NAME")  # fmt: skip
        samples = len(array)
    if samples is None:
        raise DataError("the model gives no output", "pass another model")
    return samples


def agreement_scores(original: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> np.ndarray:
    """1 where the candidate's classes are the same and its other outputs within 5% (relative L2), else 0."""
    if {name: len(array) for name, array in original.items()} != {n: len(a) for n, a in candidate.items()}:
        raise DataError("the two models' kept predictions do not belong together: outputs or samples differ",
                        "evaluate both on the same data")  # fmt: skip
    agree = np.ones(len(next(iter(original.values()))), dtype=bool)
    for name, ours in original.items():
        theirs = candidate[name]
        if name.startswith("class:"):
            agree &= (ours == theirs) & (ours != _PREDICTED_NOTHING)
        elif ours.shape != theirs.shape:
            raise DataError(f"output {name.partition(':')[2]!r} has another shape than the original's",
                            "compare models with the same outputs")  # fmt: skip
        else:
            gap = np.linalg.norm(ours.astype(np.float64) - theirs, axis=1)
            agree &= gap <= _AGREEING_ERROR * np.linalg.norm(ours.astype(np.float64), axis=1)
    return agree.astype(np.uint8)


def argmax(scores: np.ndarray) -> np.ndarray:
    """The highest column of each row, the first of equals; -1 for a row with a NaN."""
    scores = scores.astype(np.float32) if scores.dtype.name == "bfloat16" else scores
    return np.where(np.isnan(scores).any(axis=1), _PREDICTED_NOTHING, scores.argmax(axis=1))


def _classes(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray, output: str | None, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    wanted = _integers(labels)
    if _is_table(wanted, len(wanted)) and wanted.shape[1] == 1:
        wanted = wanted[:, 0]
    if wanted.ndim != 1:
        raise DataError(f"labels have shape {_shape(labels.shape)}, wanted one class number per sample",
                        "pass another --metric")  # fmt: skip
    need = f"floats [{len(wanted)}, at least {columns} columns], one row per label"
    scores = choose_output(
        outputs, output, need,
        lambda each: is_float(each) and _is_table(each, len(wanted)) and each.shape[1] >= columns,
    )  # fmt: skip
    _in_range(wanted, scores.shape[1])
    return (scores.astype(np.float32) if scores.dtype.name == "bfloat16" else scores), wanted


def _is_table(array: np.ndarray, rows: int) -> bool:
    return len(array.shape) == _TABLE_AXES and len(array) == rows


def _integers(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iubf":
        raise DataError(f"labels are {labels.dtype}, wanted class numbers", "store labels as integers")
    whole = labels.astype(np.int64) if labels.dtype.kind != "f" or np.isfinite(labels).all() else None
    if whole is None or (whole != labels).any():
        raise DataError("labels are not whole numbers, this metric wants classes", "pass --metric mse")
    return whole


def _in_range(wanted: np.ndarray, columns: int) -> None:
    bad = wanted[(wanted < 0) | (wanted >= columns)]
    if len(bad):
        raise DataError(
            f"label {bad[0]} is out of range: the output has {columns} columns, labels are 0 to {columns - 1}"
            + (f" ({len(bad)} such labels in this batch)" if len(bad) > 1 else ""),
            "number the classes from 0 in the order of the model's columns",
        )


def _finite(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iubf" or not np.isfinite(labels).all():
        raise DataError("labels hold values that are not finite numbers", "remove these rows from the data")
    return labels.astype(np.float64)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1 after the first: [n] and [n, 1] hold the same."""
    return (*shape[:1], *(size for size in shape[1:] if size != 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place], dtype=np.float64)


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"


def _described(name: str, array: np.ndarray) -> str:
    return f"{name} {array.dtype} {_shape(array.shape)}"


def join(pieces: list[Kept]) -> Kept:
    """The kept rows of all batches, one after the other.

    Numbers of every place of a sample (`value:`) are as many as its batch is long: zeros fill them up to the longest,
    in both of two models that are compared.

    Raises:
        DataError: there are none, or the batches kept different things.
    """
    if not pieces:
        raise DataError("no samples to score", "check that --data holds rows")
    pieces = _filled(pieces)
    first = {name: array.shape[1:] for name, array in pieces[0].items()}
    for piece in pieces:
        if {name: array.shape[1:] for name, array in piece.items()} != first:
            raise DataError(
                "outputs change their shape from batch to batch, so they cannot be kept for this metric",
                "use a metric that returns one score per sample",
            )
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in first}


def _filled(pieces: list[Kept]) -> list[Kept]:
    widths: dict[str, int] = {}
    for piece in pieces:
        for name, array in piece.items():
            if name.startswith("value:") and array.ndim == _TABLE_AXES:
                widths[name] = max(widths.get(name, 0), array.shape[1])
    return [
        {
            name: np.pad(array, ((0, 0), (0, widths[name] - array.shape[1]))) if name in widths else array
            for name, array in piece.items()
        }
        for piece in pieces
    ]


def mean(kept: Mapping[str, np.ndarray]) -> float:
    """The mean of the per-sample scores."""
    if "score" not in kept:
        raise UsageError("this metric has no score per sample: compare the predictions of two models instead")
    return float(np.mean(kept["score"], dtype=np.float64)) if len(kept["score"]) else float("nan")
