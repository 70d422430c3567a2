"""The verdict in plain words, and the drop's interval beside the limit as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlpack.reports.page.wording import drop, drop_interval, interval, number, score, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.artifact import AccuracyRecord, Artifact

_TITLES = {
    "pass": "Pass: proven to be inside the limit",
    "likely": "Likely: measured inside the limit, not proven",
    "inconclusive": "Inconclusive: these samples cannot tell",
    "fail": "Fail: outside the limit",
    "none": "No verdict: nothing was judged",
}
_BECAUSE = {
    "pass": "Even the bad end of the drop's interval is inside the limit.",
    "likely": "The measured drop is inside the limit, the bad end of its interval only inside twice the limit.",
    "inconclusive": "The drop's interval reaches too far to both sides of the limit.",
    "fail": "Even the good end of the drop's interval is outside the limit.",
    "none": "No limit was set for the drop.",
}
_PADDING = 0.08


def is_percent(artifact: Artifact, reports: dict[str, Any]) -> bool:
    """Whether the metric is printed in percent and points: the comparison says so, else counted errors do."""
    return bool(reports.get("comparison", {}).get("percent", artifact.accuracy.errors_baseline is not None))


def verdict(artifact: Artifact, *, percent: bool) -> dict[str, Any]:
    """What the top of the page says and shows."""
    accuracy = artifact.accuracy
    return {
        "word": accuracy.verdict,
        "title": _TITLES[accuracy.verdict],
        "because": list(_because(artifact)),
        "facts": [*_facts(accuracy, percent=percent), *_gains(artifact)],
        "figure": _figure(accuracy, percent=percent),
    }


def _because(artifact: Artifact) -> Iterator[str]:
    accuracy = artifact.accuracy
    if accuracy.verified_on == "synthetic":
        yield "Compared on made-up inputs only: the graphs answer alike there, accuracy on real data is unknown."
    else:
        yield _BECAUSE[accuracy.verdict]
    if accuracy.samples_to_prove:
        yield f"About {accuracy.samples_to_prove:,} such samples would prove it."
    if accuracy.verified_on == "agreement":
        yield "There were no labels: this is agreement with the original, not accuracy."
    if artifact.status == "candidate":
        yield "It is published as a candidate, which packaging and tagging refuse unless they are forced."
    if accuracy.simulated:
        yield "Judged by running the target's graph literally in fp32 on another machine."
    if accuracy.batch_dependent:
        yield f"Its answers depend on batch mates: judged alone and at batch {accuracy.batch}, the worse counts."


def _facts(accuracy: AccuracyRecord, *, percent: bool) -> Iterator[tuple[str, str, str]]:
    """Name, value and a remark of each fact below the verdict."""
    if accuracy.drop is not None:
        reach = drop_interval(accuracy.drop_ci90, percent=percent)
        yield "drop", drop(accuracy.drop, percent=percent), f"90% interval {reach}"
    if accuracy.limit is not None:
        yield "allowed drop", drop(accuracy.limit, percent=percent), f"limit: {accuracy.limit_text}"
    if accuracy.baseline is not None and accuracy.optimized is not None:
        before, after = (score(value, percent=percent) for value in (accuracy.baseline, accuracy.optimized))
        yield accuracy.metric, f"{before} → {after}", f"on {accuracy.samples:,} samples"
    if accuracy.errors_baseline is not None and accuracy.errors_optimized is not None:
        change = accuracy.errors_optimized - accuracy.errors_baseline
        said = "as many" if change == 0 else f"{abs(change):,} {'more' if change > 0 else 'fewer'}"
        yield "errors", f"{accuracy.errors_baseline:,} → {accuracy.errors_optimized:,}", said


def _gains(artifact: Artifact) -> Iterator[tuple[str, str, str]]:
    for record in artifact.latency:
        if record.baseline and record.optimized and record.speedup:
            change = f"{number(record.baseline.p50)} → {number(record.optimized.p50)} ms"
            reach = f", 95% interval {interval(record.speedup_ci95)}" if record.speedup_ci95 else ""
            yield f"P50 at batch {record.batch}", change, f"{number(record.speedup)} × the speed{reach}"
    before = artifact.baseline.get("size_bytes")
    yield "size", f"{size(before)} → {size(artifact.model.size_bytes)}", "on disk"


def _figure(accuracy: AccuracyRecord, *, percent: bool) -> dict[str, Any] | None:
    """Where the marks lie, in percent of the figure's width."""
    if accuracy.drop is None or accuracy.drop_ci90 is None:
        return None
    low, high = accuracy.drop_ci90
    marks = [0.0, low, high, accuracy.drop, *([] if accuracy.limit is None else [accuracy.limit])]
    width = max(marks) - min(marks)
    if width == 0:
        return None
    start, width = min(marks) - _PADDING * width, (1 + 2 * _PADDING) * width

    def at(value: float) -> float:
        return round((value - start) / width * 100, 2)

    return {
        "zero": at(0),
        "low": at(low),
        "high": at(high),
        "drop": at(accuracy.drop),
        "limit": None if accuracy.limit is None else at(accuracy.limit),
        "limit_label": None if accuracy.limit is None else f"allowed {drop(accuracy.limit, percent=percent)}",
    }
