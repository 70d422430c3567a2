"""What `optimize` closes with: the verdict and what it rests on, in the fewest words that are all true."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.summary import Commands, Facts, Grid
from mlpack.core.wording import count, size, times
from mlpack.reports.predicted import predicted_lines
from mlpack.reports.pruned import pruned_line, pruned_of
from mlpack.reports.trained import int8_trained_of, trained_line, trained_of
from mlpack.reports.tried import tried

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.artifact import AccuracyRecord, Artifact, GroupRecord, LatencyRecord, Stored
    from mlpack.core.summary import Part

_SHOWN_BEFORE = 3
_VERDICTS = {
    "pass": "PASS: proven to be inside the limit",
    "likely": "LIKELY: measured inside the limit, not proven",
    "inconclusive": "INCONCLUSIVE: these samples cannot tell",
    "none": "NO VERDICT: nothing was judged",
}

_GATE = {
    "pass": "would pass: exit 0",
    "likely": "would pass, flagged: exit 0, with --require proven 6",
    "inconclusive": "could not tell: exit 6",
    "none": "would refuse, nothing was judged: exit 2",
}


def closing(stored: Stored) -> Iterator[Part]:
    """Verdict, accuracy, speed, size, what was tried, where it lies, what to do next."""
    this = stored.artifact
    yield f"{this.name}@{this.version}   {_VERDICTS[this.accuracy.verdict]}"
    yield ""
    pruned, trained = pruned_of(stored.path), trained_of(stored.path)
    int8 = int8_trained_of(stored.path)
    changed = [
        *([("pruned", [pruned_line(pruned)])] if pruned else []),
        *([("trained", [trained_line(trained)])] if trained else []),
        *([("int8 trained", [trained_line(int8)])] if int8 else []),
    ]
    yield Facts((*_facts(this), *changed))
    if this.components:
        rows = [(each.name, f"{each.p50:.3f}", f"{each.share:.1%}") for each in this.components]
        yield ""
        yield f"Where the time goes, at batch {this.latency[0].batch}:"
        yield Grid(("component", "P50 ms", "share"), rows, right=("P50 ms", "share"))
    if this.components_before:
        most = sorted(this.components_before, key=lambda each: -each.share)[:_SHOWN_BEFORE]
        yield f"before: {', '.join(f'{each.name} {each.share:.0%}' for each in most)}"
    if this.modules:
        yield ""
        yield "Which part got faster, by module of the original:"
        cells = [(each.module, _ms(each.baseline), _ms(each.optimized)) for each in this.modules]
        yield Grid(("module", "before ms", "now ms"), cells, right=("before ms", "now ms"))
    if this.lengths:
        yield ""
        yield "By length, one sample at a time:"
        cells = [(str(each.length), _ms(each.baseline), _ms(each.optimized)) for each in this.lengths]
        yield Grid(("length", "before ms", "now ms"), cells, right=("length", "before ms", "now ms"))
    if this.candidates:
        yield ""
        yield tried(this)
    yield f"It lies in {_near(stored.path)}"
    yield "Next:"
    yield Commands(tuple(_next(this, stored.path)))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _facts(this: Artifact) -> Iterator[tuple[str, list[str]]]:
    yield "accuracy", list(accuracy_lines(this.accuracy))
    yield "gate", [f"{_GATE[this.accuracy.verdict]} (accuracy, at this limit)"]
    timed = [record for record in this.latency if record.baseline and record.optimized]
    if timed:
        yield "speed", [_speed(record) for record in timed]
        yield from _energy(timed)
        again = [] if timed[0].steady else ["not steady: `mlpack bench` times it again"]
        yield (
            "measured",
            [
                f"{_threads(timed[0])}, {this.environment['cpu']}",
                f"in turns with the original ({_original(this)}), each launch a fresh process",
                *timed[0].notes,
                *again,
            ],
        )
    else:
        told = [] if this.prediction is None else predicted_lines(this.prediction)
        alone = [record for record in this.latency if record.optimized]
        now = [f"P50 {record.optimized.p50:.3g} ms at batch {record.batch}" for record in alone if record.optimized]
        yield "speed", [*now, f"not {'compared' if now else 'measured'}: {this.latency[0].reason}", *told]
    before = this.baseline.get("size_bytes")
    share = f"{this.model.numerics_share:.0%} of the compute" if this.model.numerics != "fp32" else "all of it"
    explicit = this.target.get("kind") == "cuda" and this.model.quantization is not None
    explicit = explicit and this.model.numerics != "int4"
    later = "; the graph keeps float weights behind Q/DQ, the engine will not" if explicit else ""
    yield "size", [f"{size(before)} → {size(this.model.size_bytes)}{later}"]
    how = f" {this.model.quantization.method}" if this.model.quantization else ""
    version = this.environment["libraries"].get(this.model.backend, "")
    yield "runs as", [f"{this.model.numerics}{how} ({share}) on {this.model.backend} {version}"]


def _threads(record: LatencyRecord) -> str:
    """Of the run; and of the model, where fewer are faster."""
    own = record.optimized.threads if record.optimized else None
    fewer = f", {own} of them used by the model" if own is not None and own < record.threads else ""
    return f"{count(record.threads, 'thread')}{fewer}"


def accuracy_lines(accuracy: AccuracyRecord) -> Iterator[str]:
    """Metric before → after, errors before → after, drop with its interval beside the allowed limit."""
    percent = accuracy.errors_baseline is not None
    if accuracy.verified_on == "synthetic":
        yield "compared on synthetic inputs only: graphs answer alike, accuracy is unknown"
    if accuracy.baseline is None or accuracy.optimized is None or accuracy.drop is None:
        return
    scale, unit = (100, "pt") if percent else (1, "")
    kind = "agreement with the original, not accuracy," if accuracy.metric == "agreement" else accuracy.metric
    errors = (
        f"; errors {accuracy.errors_baseline:,} → {accuracy.errors_optimized:,}"
        if accuracy.errors_baseline is not None
        else ""
    )
    mark = "%" if percent else ""
    yield (
        f"{accuracy.baseline * scale:.4g}{mark} → {accuracy.optimized * scale:.4g}{mark} {kind} on "
        f"{count(accuracy.samples, 'sample')}{errors}"
    )
    low, high = accuracy.drop_ci90 or (accuracy.drop, accuracy.drop)
    allowed = (
        f", allowed {accuracy.limit * scale:.3g}{unit} ({accuracy.limit_text})" if accuracy.limit is not None else ""
    )
    yield f"drop {accuracy.drop * scale:.3g}{unit} [{low * scale:.3g}, {high * scale:.3g}]{allowed}"
    if accuracy.simulated:
        yield "the target's graph, run literally in fp32 on this machine"
    if accuracy.batch_dependent:
        yield f"answers depend on batch mates: judged at batch {accuracy.batch}, the worse of two"
    if accuracy.groups:
        yield _worst_group(accuracy.groups, scale, unit)
    if accuracy.samples_to_prove:
        yield f"about {accuracy.samples_to_prove:,} samples would prove it"


def _worst_group(groups: tuple[GroupRecord, ...], scale: int, unit: str) -> str:
    worst = groups[0]
    if worst.drop is None or worst.interval is None:
        return f"none of its {len(groups)} groups can be judged by itself"
    low, high = (end * scale for end in worst.interval)
    return (
        f"worst of {len(groups)} groups: {worst.group} drops {worst.drop * scale:.3g}{unit} [{low:.3g}, {high:.3g}] on "
        f"{count(worst.samples, 'sample')}"
    )


def _energy(timed: list[LatencyRecord]) -> Iterator[tuple[str, list[str]]]:
    """Millijoules per sample, where the machine has sensors for them."""
    lines = [
        f"{record.baseline.energy_mj:.3g} → {record.optimized.energy_mj:.3g} mJ a sample at batch {record.batch}"
        for record in timed
        if record.baseline and record.baseline.energy_mj is not None
        if record.optimized and record.optimized.energy_mj is not None
    ]
    if lines:
        yield "energy", lines


def _speed(record: LatencyRecord) -> str:
    assert record.baseline is not None
    assert record.optimized is not None
    assert record.speedup is not None
    low, high = record.speedup_ci95 or (record.speedup, record.speedup)
    tail = "" if record.optimized.p99 is None else f", P99 {record.optimized.p99:.3g} ms"
    return (
        f"{record.speedup:.2f} × [{times(low)}, {times(high)}] at batch {record.batch}: "
        f"P50 {record.baseline.p50:.3g} → {record.optimized.p50:.3g} ms{tail}"
    )


def _original(this: Artifact) -> str:
    backend = this.baseline.get("backend")
    return {"torch": "PyTorch eager"}.get(str(backend), str(backend))


def recheck_line(rows: list[dict[str, Any]], artifact: Artifact) -> str:
    """One line on the short A/B of an unchanged run beside what was published."""
    now = {row["batch"]: row for row in rows if row["contender"] == "baseline"}
    told = [
        f"{now[record.batch]['speedup_over']:.2f} × at batch {record.batch} (published: {record.speedup:.2f} ×)"
        for record in artifact.latency
        if record.batch in now and record.speedup is not None
    ]
    return f"timed again, briefly: {', '.join(told)}"


def _near(path: Path) -> str:
    relative = os.path.relpath(path)
    return f"./{relative}" if not relative.startswith("..") else str(path)


def _next(this: Artifact, path: Path) -> Iterator[str]:
    store = path.parent.parent
    flag = "" if store == Path("artifacts").absolute() else f" --store {_near(store)}"
    force = " --force" if this.status == "candidate" else ""
    name = f"{this.name}@{this.version}"
    if this.target.get("here") is False:
        yield f"mlpack build {name}{flag}    (on {this.target['name']}, which it is for)"
    yield f"mlpack bench {name}{flag}"
    if this.model.format == "onnx":
        yield f"mlpack package {name} --runtime triton{force}{flag}"
    yield f"mlpack tag {name} prod{force}{flag}"
    yield f"mlpack gate {this.name} --against {this.name}@prod{flag}    (in CI, from the next version on)"
