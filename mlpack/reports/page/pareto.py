"""The candidates as points of a plot: latency across, accuracy upwards, size as area."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlpack.errors import UsageError
from mlpack.measure.limits import Limit
from mlpack.reports.page.wording import drop, drop_interval, number, score, size

if TYPE_CHECKING:
    from mlpack.core.artifact import Artifact, CandidateRecord


def higher_is_better(artifact: Artifact) -> bool:
    """Which way the metric goes: a drop is positive where the model is worse."""
    before, after, worse = artifact.accuracy.baseline, artifact.accuracy.optimized, artifact.accuracy.drop
    return before is None or after is None or worse is None or (before - after) * worse >= 0


def pareto(artifact: Artifact, *, percent: bool) -> dict[str, Any] | None:
    """The plot's points, limit and front; None where fewer than two candidates were both scored and timed."""
    plotted = [
        (index, each)
        for index, each in enumerate(artifact.candidates, start=1)
        if each.accuracy is not None and each.latency is not None and each.latency.get("p50_ms")
    ]
    if not plotted:
        return None
    batches = sorted({int(batch) for _, each in plotted for batch in (each.latency or {})["p50_ms"]})
    better = higher_is_better(artifact)
    # One that was scored on a part of the rows stands as far below the original of all rows as it does on its part.
    whole = max((each.accuracy or {} for _, each in plotted), key=lambda accuracy: accuracy["samples"])
    original = whole["optimized"] + (whole["drop"] if better else -whole["drop"])
    on_all = (original, whole["samples"])
    points = [_point(index, each, *on_all, better=better, percent=percent) for index, each in plotted]
    before = _original(artifact, batches, original, percent=percent)
    if before is not None:
        points.append(before)
    if len(points) < 2:  # noqa: PLR2004 - one point compares with nothing
        return None
    across = (
        f"P50 in ms at batch {batches[0]}"
        if len(batches) == 1
        else f"P50 in ms, geometric mean of batch {' and '.join(map(str, batches))}"
    )
    unit = " in %" if percent else ""
    return {
        "points": points,
        "front": _front(points, better=better),
        "limit": _limit(artifact, original, better=better, percent=percent),
        "reverse": not better,
        "across": across,
        "upwards": f"{artifact.accuracy.metric}{unit}{'' if better else ', lower is better'}",
        "batches": batches,
    }


def _point(
    index: int, candidate: CandidateRecord, original: float, samples: int, *, better: bool, percent: bool
) -> dict[str, Any]:
    accuracy, latency = candidate.accuracy, candidate.latency
    assert accuracy is not None
    assert latency is not None
    scale = 100 if percent else 1
    part = f" on {accuracy['samples']:,} of {samples:,} samples" if accuracy["samples"] < samples else ""
    ends = accuracy.get("drop_ci90")
    reached = [original - end if better else original + end for end in ends] if ends else None
    label = candidate.label or candidate.recipe
    lines = [
        f"{index}  {label}",
        f"numerics {candidate.numerics}, backend {candidate.backend}",
        f"{accuracy['metric']} {score(accuracy['optimized'], percent=percent)}{part}",
        f"drop {drop(accuracy['drop'], percent=percent)} (90%: {drop_interval(ends, percent=percent)})",
        *(f"P50 {number(ms)} ms at batch {batch}" for batch, ms in latency["p50_ms"].items()),
        f"size {size(candidate.size_bytes)}",
        f"{'chosen' if candidate.chosen else 'not chosen'}: {candidate.why}",
    ]
    return {
        "kind": "chosen" if candidate.chosen else "other",
        "x": _geometric_mean(list(latency["p50_ms"].values())),
        "y": (original - accuracy["drop"] if better else original + accuracy["drop"]) * scale,
        "low": min(reached) * scale if reached else None,
        "high": max(reached) * scale if reached else None,
        "size": candidate.size_bytes,
        "lines": lines,
        "texts": [f"{index} chosen", str(index)] if candidate.chosen else [str(index)],
    }


def _original(artifact: Artifact, batches: list[int], accuracy: float, *, percent: bool) -> dict[str, Any] | None:
    timed = {each.batch: each.baseline.p50 for each in artifact.latency if each.baseline is not None}
    if not set(batches) <= set(timed):
        return None
    size_bytes = artifact.baseline.get("size_bytes")
    return {
        "kind": "original",
        "x": _geometric_mean([timed[batch] for batch in batches]),
        "y": accuracy * (100 if percent else 1),
        "low": None,
        "high": None,
        "size": size_bytes,
        "lines": [
            "the original",
            f"numerics {artifact.baseline.get('numerics', '–')}, backend {artifact.baseline.get('backend', '–')}",
            f"{artifact.accuracy.metric} {score(accuracy, percent=percent)}",
            *(f"P50 {number(timed[batch])} ms at batch {batch}" for batch in batches),
            f"size {size(size_bytes)}",
        ],
        "texts": ["original"],
    }


def _limit(artifact: Artifact, original: float, *, better: bool, percent: bool) -> dict[str, Any] | None:
    """The limit on these rows: one that is relative is not the same number on other rows."""
    record = artifact.accuracy
    if record.limit is None or record.limit_text is None:
        return None
    try:
        unit = Limit.parse(record.limit_text).unit
    except UsageError:
        unit = "pt"
    allowed = record.limit
    if unit == "%" and record.baseline:
        allowed = record.limit / abs(record.baseline) * abs(original)
    elif unit == "% errors" and record.baseline is not None and record.baseline < 1:
        allowed = record.limit / (1 - record.baseline) * (1 - original)
    height = original - allowed if better else original + allowed
    return {"y": height * (100 if percent else 1), "label": f"the limit, {record.limit_text}"}


def _front(points: list[dict[str, Any]], *, better: bool) -> list[dict[str, float]]:
    """The points that no other beats in both, from the fastest on."""
    sign = 1 if better else -1
    front: list[dict[str, float]] = []
    for point in sorted(points, key=lambda each: (each["x"], -sign * each["y"])):
        if not front or sign * point["y"] > sign * front[-1]["y"]:
            front.append({"x": point["x"], "y": point["y"]})
    return front


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))
