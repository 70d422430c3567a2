"""What a model is likely to take on a target that is not here, told as a prediction and never as a measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpack.core.artifact import PredictedRecord, PredictionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.api.floor import Counted
    from mlpack.core.efficiency import Learnt
    from mlpack.core.model import Model
    from mlpack.core.target import Target

# Of what was learnt, as far as a reader wants to judge by it.
_TOLD = ("backend", "version", "method", "cpu", "unit", "date", "models", "median_error", "most_error")
# In the median of models left out: the most that is asked of benchmarks/prediction.py.
_FAR_OFF = 0.3


@dataclass(frozen=True)
class Prediction:
    """Ms by batch size and numerics, as if all operators ran in them, with so many threads of the target.

    `rests_on` says for each of the numerics which backend and method it was learnt from, the fastest by what was
    learnt well enough, and how far off that was for models that were left out; `none_for` why there is none.
    """

    threads: int
    predicted_ms: dict[int, dict[str, float]]
    rests_on: dict[str, dict[str, Any]]
    none_for: dict[str, str]


def prediction_of(counted: Counted, target: Target, threads: int, backend: str | None = None) -> Prediction | None:
    """For each of the target's numerics, on one backend where it is given; None where the target can be measured."""
    if target.here:
        return None
    from mlpack.measure.prediction import rests_on

    one = next(iter(counted.costs.values()))
    found = {each: rests_on(one, target, each, threads, backend=backend) for each in target.numerics}
    fastest = {each: _fastest(counted, target, rows) for each, (rows, _) in found.items() if rows}
    return Prediction(
        threads=threads,
        predicted_ms={
            batch: {each: ms[batch] for each, (_, ms) in fastest.items()} for batch in counted.batches if fastest
        },
        rests_on={each: _told(known) for each, (known, _) in fastest.items()},
        none_for={each: reason for each, (rows, reason) in found.items() if not rows},
    )


def _fastest(counted: Counted, target: Target, rows: list[Learnt]) -> tuple[Learnt, Mapping[int, float]]:
    """What predicts the smallest geometric mean over batch sizes, as a search ranks; and its ms by batch size.

    Of what was far off for models that were left out nothing is taken, where there is better.
    """
    from mlpack.measure.prediction import predicted_ms

    near = [row for row in rows if row.median_error <= _FAR_OFF] or rows
    told = [
        (row, {batch: predicted_ms(counted.costs[batch], target, row) for batch in counted.batches}) for row in near
    ]
    return min(told, key=lambda each: math.prod(each[1].values()))


def _told(known: Learnt) -> dict[str, Any]:
    return {name: getattr(known, name) for name in _TOLD}


def prediction_record(model: Model, counted: Counted, target: Target, threads: int) -> PredictionRecord | None:
    """Of a published model, in its own numerics; None where the target is here."""
    if target.here:
        return None
    from mlpack.measure.prediction import predicted_ms, rests_on
    from mlpack.measure.roofline import floors_ms

    numerics = model.numerics
    method = None if model.quantization is None else model.quantization.method
    one = next(iter(counted.costs.values()))
    rows, reason = rests_on(one, target, numerics, threads, backend=model.backend, method=method)
    known = rows[0] if rows else None
    return PredictionRecord(
        numerics=numerics,
        threads=threads,
        batches=tuple(
            PredictedRecord(
                batch=batch,
                ms=None if known is None else predicted_ms(counted.costs[batch], target, known),
                floor_ms=floors_ms(counted.costs[batch], target).get(numerics),
            )
            for batch in counted.batches
        ),
        reason=reason or None,
        rests_on={} if known is None else _told(known),
    )
