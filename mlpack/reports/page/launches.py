"""The calls of every launch, few enough to draw: a launch is a fresh process, and the spread is between launches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.reports.page.wording import number

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_DOTS = 100
_NAMES = {"baseline": "original", "optimized": "optimized"}
_DIGITS = 4


def launches(timings: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A figure for each batch size of `CONTENDER/BATCH/LAUNCH: ms per call`: the launches of the original first."""
    by_batch: dict[int, list[tuple[str, int, np.ndarray]]] = {}
    for key, ms in timings.items():
        contender, _, which = key.partition("/")
        if contender in _NAMES and len(ms):
            batch, launch = map(int, which.split("/"))
            by_batch.setdefault(batch, []).append((contender, launch, ms))
    order = list(_NAMES)
    return [
        {
            "batch": batch,
            "rows": [
                _row(contender, launch, ms)
                for contender, launch, ms in sorted(found, key=lambda each: (order.index(each[0]), each[1]))
            ],
        }
        for batch, found in sorted(by_batch.items())
    ]


def _row(contender: str, launch: int, ms: np.ndarray) -> dict[str, Any]:
    """A launch: its median, and at most `MOST_DOTS` of its calls, evenly spread by rank, the extremes among them."""
    ranked = np.sort(np.asarray(ms, dtype=np.float64))
    shown = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(len(ranked), MOST_DOTS)).round().astype(int))]
    median = float(np.median(ranked))
    return {
        "kind": _NAMES[contender],
        "label": f"{_NAMES[contender]} {launch + 1}",
        "calls": len(ranked),
        "median": _short(median),
        "median_text": number(median),
        "ms": [_short(value) for value in shown.tolist()],
    }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
