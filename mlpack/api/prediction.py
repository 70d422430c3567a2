"""What a model is likely to take on a target that is not here, told as a prediction and never as a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpack.core.artifact import PredictedRecord, PredictionRecord

if TYPE_CHECKING:
    from mlpack.api.floor import Counted
    from mlpack.core.model import Model
    from mlpack.core.target import Target

# Of what was learnt, as far as a reader wants to judge by it.
_TOLD = ("backend", "version", "cpu", "unit", "date", "models", "median_error", "most_error")


@dataclass(frozen=True)
class Prediction:
    """Ms by batch size and numerics, as if all operators ran in them, with so many threads of the target.

    `rests_on` says for each of the numerics what it was learnt from and how far off it was for models that were left
    out; `none_for` why there is none.
    """

    threads: int
    predicted_ms: dict[int, dict[str, float]]
    rests_on: dict[str, dict[str, Any]]
    none_for: dict[str, str]


def prediction_of(counted: Counted, target: Target, threads: int) -> Prediction | None:
    """For each of the target's numerics; None where the target is here, and can be measured."""
    if target.here:
        return None
    from mlpack.measure.prediction import predicted_ms, refusal

    one = next(iter(counted.costs.values()))
    reasons = {each: refusal(one, target, each, threads) for each in target.numerics}
    told = [each for each, reason in reasons.items() if reason is None]
    return Prediction(
        threads=threads,
        predicted_ms={
            batch: {each: predicted_ms(counted.costs[batch], target, each, threads) for each in told}
            for batch in counted.batches
            if told
        },
        rests_on={each: _told(target, each, threads) for each in told},
        none_for={each: reason for each, reason in reasons.items() if reason is not None},
    )


def _told(target: Target, numerics: str, threads: int) -> dict[str, Any]:
    from mlpack.measure.prediction import rests_on

    known = rests_on(target, numerics, threads)
    assert known is not None
    return {name: getattr(known, name) for name in _TOLD}


def prediction_record(model: Model, counted: Counted, target: Target, threads: int) -> PredictionRecord | None:
    """Of a published model, in its own numerics; None where the target is here."""
    found = prediction_of(counted, target, threads)
    if found is None:
        return None
    from mlpack.measure.roofline import floors_ms

    numerics = model.numerics
    reason = _refusal(model) or found.none_for.get(numerics)
    known = found.rests_on.get(numerics, {})
    floors = {batch: floors_ms(counted.costs[batch], target).get(numerics) for batch in counted.batches}
    return PredictionRecord(
        numerics=numerics,
        threads=threads,
        batches=tuple(
            PredictedRecord(
                batch=batch,
                ms=None if reason else found.predicted_ms[batch][numerics],
                floor_ms=floors[batch],
            )
            for batch in counted.batches
        ),
        reason=reason,
        rests_on={} if reason else known,
    )


def _refusal(model: Model) -> str | None:
    """What the artifact's own model has that nothing was learnt of."""
    from mlpack.core.efficiency import learnt

    backends = {each.backend for each in learnt()}
    if model.backend not in backends:
        return f"learnt of {' and '.join(sorted(backends))}, and this runs on {model.backend}"
    method = None if model.quantization is None else model.quantization.method
    return None if method in {None, "static"} else f"learnt of static ranges, and these are {method}"
