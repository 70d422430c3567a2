"""`mlpack show`: what an artifact is and how it was proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.cli.options import MaybeRef, Store
from mlpack.cli.wording import count, interval, number, size, speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.cli.screen import Screen
    from mlpack.core.artifact import Artifact, LatencyRecord, Stored, Timing


def command(screen: Screen, reference: MaybeRef = None, store: Store = None) -> None:
    """Show what an artifact is and how it was proven."""
    from mlpack.api.show import show
    from mlpack.store.tags import tags_of

    stored = show(reference, store)
    tags = tags_of(stored)
    document = stored.artifact.model_dump(mode="json", by_alias=True)

    def human(screen: Screen) -> None:
        _draw(screen, stored, tags)

    screen.result({**document, "path": str(stored.path), "tags": tags}, human)


def _draw(screen: Screen, stored: Stored, tags: list[str]) -> None:
    this = stored.artifact
    screen.print(f"{this.name}@{this.version}: {this.accuracy.verdict} ({this.status}) {' '.join(tags)}".rstrip())
    screen.table(("", ""), _facts(this, str(stored.path)))
    if this.latency:
        columns = ("batch", "threads", "P50 before", "P50 after", "speed", "95% interval", "device")
        right = columns[:-1]
        screen.table(columns, map(_latency, this.latency), title="latency in ms", right=right)
        for record in this.latency:
            if record.reason:
                screen.print(f"batch {record.batch}: not measured: {record.reason}")
    rows = [(each.stage, _options(each.options), f"{each.seconds:.1f}") for each in this.lineage]
    screen.table(("stage", "options", "seconds"), rows, title="lineage", right=("seconds",))
    if this.candidates:
        tried = [(each.label or each.recipe, "chosen" if each.chosen else "", each.why) for each in this.candidates]
        screen.table(("tried", "", "why"), tried)


def _facts(this: Artifact, path: str) -> Iterator[tuple[str, str]]:
    model, accuracy = this.model, this.accuracy
    yield "path", path
    yield "digest", this.digest
    yield "source", f"{this.source.path} ({this.source.kind})"
    yield "target", str(this.target.get("name", ""))
    yield "model", f"{model.numerics} in {model.numerics_share:.0%} of the compute, {model.format}"
    yield "runs on", f"{model.backend}, {model.backend_options.precision}"
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
