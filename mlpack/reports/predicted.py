"""How a prediction reads: always as one, and never without how far off it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlpack.core.wording import count, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.artifact import PredictionRecord


def rests_on(known: Mapping[str, Any], threads: int) -> str:
    """What it was learnt from, and its error on models that were left out of the learning."""
    how = "" if known.get("method") is None else f", {known['method']}"
    return (
        f"{known['backend']}{how} with {count(threads, 'thread')}, learnt from {count(known['models'], 'model')} on "
        f"{known['cpu']} ({known['unit']}), whose clock and caches it takes the target to have; "
        f"wrong by {known['median_error']:.0%} in the median of models left out, by {known['most_error']:.0%} at most"
    )


def predicted_lines(this: PredictionRecord) -> Iterator[str]:
    """Of an artifact, in its own numerics; the floor where nothing is predicted."""
    for each in this.batches:
        if each.ms is not None:
            yield f"predicted, not measured: {number(each.ms, 2)} ms at batch {each.batch}"
        elif each.floor_ms is not None:
            yield f"no run is faster than {number(each.floor_ms, 2)} ms at batch {each.batch}"
    yield f"not predicted: {this.reason}" if this.reason else rests_on(this.rests_on, this.threads)
