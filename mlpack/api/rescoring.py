"""Scores artifacts on data that a gate is given, on the rows that nothing was chosen by."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mlpack.api.baselines import OPTIMIZED, Scored, judged_by, of_arrays, scored
from mlpack.api.lookup import intact_model, raw_options
from mlpack.core.arrays import load_arrays
from mlpack.datasets import raw_kind
from mlpack.engine.run import run
from mlpack.errors import DataError, GateFailed

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.artifact import Stored
    from mlpack.datasets.raw import RawDataset
    from mlpack.engine.context import Context


def context_of(data: str, stored: Stored, context: Context) -> Context:
    """The context with this data: where it is what the artifact was judged on, its confirming rows, else all rows.

    Raises:
        DataError: the data cannot be used or does not fit the model.
    """
    from mlpack.core.dataset import PARTS
    from mlpack.datasets import check_fits, open_data
    from mlpack.datasets.ref import make_ref
    from mlpack.datasets.split import Split

    raw = raw_options(stored)
    opened = open_data(data, raw=raw)
    check_fits(opened, stored.artifact.model.inputs)
    rows = confirmed_rows(stored, opened.fingerprint)
    if rows is None:
        ref = make_ref(data, opened, raw=raw)
        return replace(context, data=ref, parts=dict.fromkeys(PARTS, opened.fingerprint))
    name = hashlib.sha256(opened.fingerprint.encode() + rows.tobytes()).hexdigest()
    place = context.cache / "splits" / f"{name}.npz"
    Split(0, False, rows[:0], rows[:0], rows).save(place)
    assert stored.artifact.accuracy.part is not None
    parts = dict.fromkeys(PARTS, stored.artifact.accuracy.part)
    return replace(context, data=make_ref(data, opened, place, raw=raw), parts=parts)


def prepared_as(other: Stored, data: str, stored: Stored, context: Context) -> Context:
    """The context for another artifact on the same rows: its own pipeline prepares them, where that is another one.

    Raises:
        DataError: the two cannot use the same samples of the data.
    """
    import numpy as np

    from mlpack.datasets import open_data

    mine, theirs = raw_options(stored), raw_options(other)
    if raw_kind(data) is None or mine is None or theirs is None or context.data is None:
        return context
    one, two = (cast("RawDataset", open_data(data, raw=raw)) for raw in (mine, theirs))
    if one.fingerprint == two.fingerprint:
        return context
    if not np.array_equal(one.content, two.content):
        raise DataError(
            f"of {data} {stored.artifact.name} and {other.artifact.name} can use different samples",
            "leave out the samples that one of them cannot use",
        )
    ref = context.data.model_copy(update={"raw": theirs, "fingerprint": two.fingerprint, "inputs": two.inputs})
    parts = {
        part: hashlib.sha256(f"{key} {two.fingerprint}".encode()).hexdigest() for part, key in context.parts.items()
    }
    return replace(context, data=ref, parts=parts)


def confirmed_rows(stored: Stored, fingerprint: str) -> np.ndarray | None:
    """The rows of this data that confirmed the artifact; None where it was judged on other data."""
    if stored.artifact.accuracy.dataset != fingerprint:
        return None
    kept = stored.path / "reports" / f"{OPTIMIZED}-kept.npz"
    rows: np.ndarray | None = load_arrays(kept).get("rows") if kept.is_file() else None
    return rows


def score(stored: Stored, metric: str, output: str | None, context: Context) -> Scored:
    """The artifact's results on the confirming rows of the context; those it already has are not made again.

    Raises:
        GateFailed: the model answers NaN.
        DataError: the metric does not fit data or model.
    """
    from mlpack.stages.check_accuracy import KEPT, CheckAccuracy

    this = stored.artifact
    label = f"{this.name}@{this.version}"
    part = context.parts["confirming"]
    code = _user_code(metric)
    if (this.accuracy.part, this.accuracy.metric, *judged_by(stored)) == (part, metric, output, code):
        return scored(stored, OPTIMIZED)
    check = CheckAccuracy(
        part="confirming",
        metric=metric,
        metric_sha256=code,
        output=output,
        batch=this.accuracy.batch,
    )
    done = run(check, intact_model(stored), context, label=f"scoring {label}")
    if done.report.metrics["nonfinite"]:
        raise GateFailed(
            f"{label} answers NaN or infinity on {done.report.metrics['nonfinite']} samples",
            "mlpack predict shows its answers",
        )
    return of_arrays(label, metric, output, code, part, load_arrays(done.file(KEPT)))


def _user_code(metric: str) -> str | None:
    from mlpack.measure.user_metric import is_reference, user_code_digest

    return user_code_digest(metric) if is_reference(metric) else None


def refuse_other_rows(one: Scored, other: Scored) -> None:
    """Results are only compared row by row.

    Raises:
        DataError: they are of other rows or of another metric.
    """
    if one.part != other.part:
        raise DataError(
            f"{one.label} and {other.label} were judged on different rows: they cannot be compared row by row",
            "score both on the same data: --data FILE, with the baseline as an artifact (--against NAME@VERSION)",
        )
    if one.metric != other.metric:
        raise DataError(f"{one.label} was judged by {one.metric}, {other.label} by {other.metric}",
                        f"score both by one: --data FILE --metric {one.metric}")  # fmt: skip
    if one.output != other.output:
        raise DataError(
            f"{one.label} was judged by its output {one.output}, {other.label} by {other.output}",
            "score both by one: --data FILE, with the baseline as an artifact (--against NAME@VERSION)",
        )
    if one.code != other.code:
        raise DataError(
            f"{one.metric} is not what {other.label} was judged by: its file has changed since",
            "score both by what it is now: --data FILE, with the baseline as an artifact (--against NAME@VERSION)",
        )
