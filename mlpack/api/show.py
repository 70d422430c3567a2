"""`mlpack.show()`: one artifact, as it was published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlpack.api.lookup import artifact
from mlpack.core.artifact import Stored
from mlpack.core.summary import Grid, Part, Told
from mlpack.core.wording import count, interval, number, size, speed
from mlpack.reports.predicted import predicted_lines
from mlpack.reports.tried import tried

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.artifact import Artifact, LatencyRecord, Timing


class Shown(Stored, Told):
    """An artifact, its folder, and the tags that point at it."""

    tags: tuple[str, ...]

    def summary(self) -> Iterator[Part]:
        """What it is and how it was proven."""
        this = self.artifact
        yield f"{this.name}@{this.version}: {this.accuracy.verdict} ({this.status}) {' '.join(self.tags)}".rstrip()
        yield Grid(("", ""), list(_facts(this, str(self.path))))
        if this.latency:
            columns = ("batch", "threads", "P50 before", "P50 after", "speed", "95% interval", "device")
            rows = [_latency(each) for each in this.latency]
            yield Grid(columns, rows, title="latency in ms", right=columns[:-1])
            for record in this.latency:
                if record.reason:
                    yield f"batch {record.batch}: not measured: {record.reason}"
        if this.prediction is not None:
            yield from predicted_lines(this.prediction)
        stages = [(each.stage, _options(each.options), f"{each.seconds:.1f}") for each in this.lineage]
        yield Grid(("stage", "options", "seconds"), stages, title="lineage", right=("seconds",))
        if this.candidates:
            yield tried(this)


def show(reference: str | None = None, store: str | Path | None = None) -> Shown:
    """The artifact and its folder. Without a reference: the one the settings name, or the only one there is.

    Raises:
        UsageError: nothing is there under this reference; the hint has what is nearest.
        Tampered: its `artifact.json` is damaged.
    """
    from mlpack.store.tags import tags_of

    found = artifact(reference, store)
    return Shown(path=found.path, artifact=found.artifact, tags=tuple(tags_of(found)))


def _facts(this: Artifact, path: str) -> Iterator[tuple[str, str]]:
    model, accuracy = this.model, this.accuracy
    yield "path", path
    yield "digest", this.digest
    yield "source", f"{this.source.path} ({this.source.kind})"
    if this.parent is not None:
        yield "built from", f"{this.parent.name}@{this.parent.version}"
    yield "target", str(this.target.get("name", ""))
    yield "model", f"{model.numerics} in {model.numerics_share:.0%} of the compute, {model.format}"
    threads = f", {count(model.backend_options.threads, 'thread')}" if model.backend_options.threads else ""
    waits = ", asleep while they wait" if model.backend_options.waiting == "sleep" else ""
    by = f" by {model.backend_options.provider.name}" if model.backend_options.provider else ""
    yield "runs on", f"{model.backend}{by}, {model.backend_options.precision}{threads}{waits}"
    yield "size", f"{size(this.baseline.get('size_bytes'))} -> {size(model.size_bytes)}"
    yield "inputs", "\n".join(map(str, model.inputs))
    yield "outputs", "\n".join(map(str, model.outputs))
    before, after = number(accuracy.baseline), number(accuracy.optimized)
    what = {"labels": "on", "agreement": "(agreement with the original, not accuracy) on"}.get(
        accuracy.verified_on, "(synthetic inputs) on"
    )
    yield accuracy.metric, f"{before} -> {after} {what} {count(accuracy.samples, 'sample')}".strip()
    if accuracy.errors_baseline is not None:
        yield "errors", f"{accuracy.errors_baseline:,} -> {accuracy.errors_optimized:,}"
    if accuracy.drop is not None:
        yield "drop", f"{number(accuracy.drop, 3)} {interval(accuracy.drop_ci90)} (90% interval)"
    if accuracy.limit_text:
        yield "limit", f"{accuracy.limit_text} = {number(accuracy.limit, 3)}"
    if accuracy.simulated:
        yield "simulated", "the target's graph was run literally in fp32 on another machine"


def _latency(record: LatencyRecord) -> tuple[str, ...]:
    return (
        str(record.batch),
        str(record.threads),
        _p50(record.baseline),
        _p50(record.optimized),
        speed(record.speedup),
        interval(record.speedup_ci95),
        record.device,
    )


def _p50(timing: Timing | None) -> str:
    return number(timing.p50, 3) if timing else ""


def _options(options: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
