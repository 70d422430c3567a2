"""The candidates of a run as a table: what each one measured, which of them nothing beats, why they won or lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlpack.core.summary import Grid
from mlpack.core.wording import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.core.artifact import Artifact, CandidateRecord

_FRONT = "*"


def tried(artifact: Artifact) -> Grid:
    """A row each, as they were tried. A star marks the Pareto front: no other is as fast and as accurate."""
    candidates = artifact.candidates
    percent = artifact.accuracy.errors_baseline is not None
    front = front_of(candidates)
    rows = [
        (
            _FRONT if at in front else "",
            each.label or each.recipe,
            "–" if math.isinf(_ms(each)) else f"{_ms(each):.3g}",
            "–" if each.accuracy is None else _drop(each.accuracy["drop"], percent=percent),
            "–" if each.size_bytes is None else size(each.size_bytes),
            each.why,
        )
        for at, each in enumerate(candidates)
    ]
    return Grid(
        ("", "tried", "P50 ms", "drop", "size", "why it won or lost"),
        rows,
        title="tried, on the choosing rows" + (f" ({_FRONT} none is as fast and as accurate)" if front else ""),
        right=("P50 ms", "drop", "size"),
    )


def front_of(candidates: Sequence[CandidateRecord]) -> set[int]:
    """Places of those that were timed and scored and that no other beats in one and equals in the other."""
    known = {
        at: (_ms(each), float(each.accuracy["drop"]))
        for at, each in enumerate(candidates)
        if each.accuracy is not None and not math.isinf(_ms(each))
    }
    return {
        at
        for at, (ms, drop) in known.items()
        if not any(
            other_ms <= ms and other_drop <= drop and (other_ms, other_drop) != (ms, drop)
            for other_ms, other_drop in known.values()
        )
    }


def _ms(candidate: CandidateRecord) -> float:
    """Geometric mean over batch sizes; infinite where it was not timed."""
    return float(candidate.latency["geometric_mean_ms"]) if candidate.latency else math.inf


def _drop(drop: float, *, percent: bool) -> str:
    return f"{drop * 100:.3g}pt" if percent else f"{drop:.3g}"
