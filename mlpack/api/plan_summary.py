"""What people read of a `plan`: the stages, what they would cost, whether the data can decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.summary import Commands, Grid
from mlpack.core.wording import count, number, size
from mlpack.reports.predicted import rests_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.api.decision import Decision
    from mlpack.api.floor import Floor
    from mlpack.api.plan import Plan
    from mlpack.api.prediction import Prediction
    from mlpack.core.summary import Part
    from mlpack.engine.plan import Planned

_HIDDEN = {"sha256", "factory_sha256", "data_inputs", "metric_sha256"}
_STATES = {"kept": "kept", "runs": "would run", "unknown": "would run"}


def plan_summary(found: Plan, *, why: bool = False) -> Iterator[Part]:
    """Its lines and tables; with `why`, what has changed since earlier runs of these stages."""
    yield Grid(("stage", "options", "now"), [_row(each) for each in found.steps])
    yield ""
    yield Grid(("then", "now"), found.measuring)
    yield ""
    yield from _facts(found)
    if why:
        yield from _changes(found)
    elif any(each.why for each in found.steps):
        yield "--why says what has changed since earlier runs of these stages"


def _row(each: Planned) -> tuple[str, str, str]:
    options = ", ".join(f"{name}={_short(value)}" for name, value in each.options.items() if name not in _HIDDEN)
    optional = " (and without)" if each.optional and each.state == "unknown" else ""
    return "  " * each.depth + each.stage + optional, options, _STATES[each.state]


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value)
    return text.rpartition("/")[2] if "/" in text else text


def _facts(found: Plan) -> Iterator[str]:
    runs = sum(each.state != "kept" for each in found.steps)
    many = "" if found.candidates is None else f" for {count(found.candidates, 'candidate')}"
    yield f"{runs} of {count(len(found.steps), 'stage')} would run{many}"
    if any(each.state == "unknown" for each in found.steps):
        yield "in which ways a step is tried shows once the stage before it has run"
    yield f"target {found.target}, {count(found.threads, 'thread')}"
    if found.disk_bytes is None or found.memory_bytes is None:
        yield "disk and memory: not known before the model is loaded"
    elif runs:
        yield f"at most about {size(found.disk_bytes)} on the disk, {size(found.memory_bytes)} of memory"
    if found.floor is not None:
        yield from _floor(found.floor)
    if found.prediction is not None:
        yield from _prediction(found.prediction)
    yield from _decision(found.decision)
    if not found.lacks:
        yield "this machine lacks nothing that it needs"
    for each in found.lacks:
        yield f"lacking: {each}"


def _floor(floor: Floor) -> Iterator[str]:
    yield f"{number(floor.operations / 1e6)} million operations a sample, {number(floor.weights / 1e6)} million weights"
    where = "".join(f", {name} {size}" for name, size in floor.sizes.items())
    for batch, by_numerics in floor.floor_ms.items():
        yield f"  floor at batch {batch}{where}, in ms (no run is faster): {_by_numerics(by_numerics)}"


def _by_numerics(ms: dict[str, float]) -> str:
    return ", ".join(f"{numerics} {number(each, 2)}" for numerics, each in ms.items())


def _prediction(this: Prediction) -> Iterator[str]:
    for batch, by_numerics in this.predicted_ms.items():
        yield f"  predicted at batch {batch}, in ms (not measured): {_by_numerics(by_numerics)}"
    for numerics, known in this.rests_on.items():
        yield f"    {numerics}: {rests_on(known, this.threads)}"
    for reason in dict.fromkeys(this.none_for.values()):
        those = ", ".join(numerics for numerics, each in this.none_for.items() if each == reason)
        yield f"  no prediction for {those}: {reason}"


def _decision(this: Decision) -> Iterator[str]:
    if this.chance is None or this.limit is None or this.samples_needed is None or this.samples is None:
        yield f"can the data decide? {this.reason}"
        return
    whose = "measured" if this.baseline_measured else "assumed"
    base = f"{this.metric} {number(this.baseline)}, {whose}"
    allowed = f"{number(this.limit * 100, 3)}pt" if this.percent else number(this.limit, 3)
    yield f"can the data decide? Limit {this.limit_text} = {allowed} ({base})"
    yield f"  {count(this.samples, 'sample')} would prove a harmless model in {_share(this.chance)} of cases"
    told = f"measured of {count(this.differences_from, 'candidate')}" if this.differences_from else "assumed"
    if this.differing is not None:
        yield f"  if {number(this.differing * 100, 2)}% of its answers differ from the original's ({told})"
    else:
        yield f"  if its answers differ from the original's as far as {told}"
    if this.clusters is not None and this.chance_apart is not None:
        yield (
            f"  if the answers of each of their {count(this.clusters, 'cluster')} change together: "
            f"they weigh as {count(this.worth or 0, 'sample')} then"
        )
        yield f"  in {_share(this.chance_apart)} of cases if every sample goes its own way"
    if not this.enough:
        yield f"  {this.samples_needed:,} would in 80% of cases"
    yield "  near the limit more data will not help"


def _share(chance: float) -> str:
    return "over 99%" if chance > 0.99 else "under 1%" if chance < 0.01 else f"{chance:.0%}"  # noqa: PLR2004


def _changes(found: Plan) -> Iterator[Part]:
    lines: list[str] = []
    for each in found.steps:
        if each.state == "runs":
            lines += [f"{each.stage}: {line}" for line in each.why or ("no earlier run of it is kept",)]
    yield ""
    yield "why, against the nearest earlier run of the same stage:" if lines else "all is kept"
    yield Commands(tuple(dict.fromkeys(lines)))
    if any(each.state == "unknown" for each in found.steps):
        yield "  the stages after them wait for the models that they make"
