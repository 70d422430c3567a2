"""What differs between two artifacts as one HTML page that needs nothing else."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from mlpack.reports.html import environment, style
from mlpack.reports.page.verdict import is_percent
from mlpack.reports.page.wording import interval, number, score, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlpack.core.artifact import Artifact

Row = tuple[str, str, Any, Any]


def render_diff(a: Artifact, b: Artifact, differences: Sequence[Row]) -> str:
    """The page of two artifacts: what counts side by side, then each difference (part, what, in a, in b)."""
    parts = [(part, [row[1:] for row in rows]) for part, rows in groupby(differences, key=lambda row: row[0])]
    names = [f"{each.name}@{each.version}" for each in (a, b)]
    tiles = list(_tiles(a, b))
    return (
        environment()
        .get_template("diff.html.j2")
        .render(names=names, tiles=tiles, parts=parts, style=style(), a=a, b=b)
    )


def _tiles(a: Artifact, b: Artifact) -> Iterator[tuple[str, str, str]]:
    """Name, the values of both, and how they differ."""
    percent = is_percent(a, {})
    yield "Verdict", f"{a.accuracy.verdict} → {b.accuracy.verdict}", "each against its own original"
    yield (
        a.accuracy.metric if a.accuracy.metric == b.accuracy.metric else "Accuracy",
        f"{score(a.accuracy.optimized, percent=percent)} → {score(b.accuracy.optimized, percent=percent)}",
        _rows(a, b),
    )
    before = {each.batch: each for each in a.latency}
    for each in b.latency:
        other = before.get(each.batch)
        if other is None or other.optimized is None or each.optimized is None:
            continue
        yield (
            f"P50 at batch {each.batch}, ms",
            f"{number(other.optimized.p50)} → {number(each.optimized.p50)}",
            "in two runs, not in turns",
        )
        yield (
            f"Speed over the original, batch {each.batch}",
            f"{_times(other.speedup)} → {_times(each.speedup)}",
            f"95% interval {interval(other.speedup_ci95)}, then {interval(each.speedup_ci95)}",
        )
    change = b.model.size_bytes / a.model.size_bytes - 1 if a.model.size_bytes else 0.0
    yield "Size", f"{size(a.model.size_bytes)} → {size(b.model.size_bytes)}", f"{change:+.1%}".replace("-", "−")


def _rows(a: Artifact, b: Artifact) -> str:
    if a.accuracy.part is None or b.accuracy.part is None:
        return "each on rows of its own"
    return "on the same rows" if a.accuracy.part == b.accuracy.part else "on other rows: not to be compared"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} ×"
