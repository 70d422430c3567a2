"""`mlpack.diff()`: what differs between two artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.api.lookup import artifact
from mlpack.api.pages import check_free
from mlpack.core.filesystem import write_atomic
from mlpack.core.summary import Grid, Told
from mlpack.core.words import Frozen
from mlpack.reports.diff_html import render_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.summary import Part

Facts = Mapping[tuple[str, str], Any]
_MADE = {"artifact", "model", "lineage", "environment"}


class Difference(Frozen):
    """One thing that differs: its part, its name, and its value on either side (None: not there)."""

    part: str
    what: str
    a: Any
    b: Any


class Comparison(Frozen, Told):
    """Two artifacts and all that differs between them; `path` is the page where one was asked for."""

    a: str
    b: str
    differences: tuple[Difference, ...]
    path: str | None = None

    def summary(self) -> Iterator[Part]:
        """A row for each difference."""
        if not self.differences:
            yield f"{self.a} and {self.b} do not differ in anything that counts"
        else:
            rows = [(each.part, each.what, _cell(each.a), _cell(each.b)) for each in self.differences]
            yield Grid(("part", "what", self.a, self.b), rows)
        if self.path is not None:
            yield f"the page: {self.path}"


def diff(
    a: str, b: str, store: str | Path | None = None, *, out: str | Path | None = None, force: bool = False
) -> Comparison:
    """Numerics, accuracy, latency, sizes, lineage options and libraries, where they differ; `out`: as a page too.

    Raises:
        UsageError: nothing is there under one of the references, or `out` is there already without `force`.
        Tampered: an `artifact.json` is damaged.
        MachineError: the disk is full or `out` cannot be written.
    """
    first, second = artifact(a, store), artifact(b, store)
    found = differences(first.artifact, second.artifact)
    place = None if out is None else Path(out).expanduser().absolute()
    if place is not None:
        check_free(place, inside=(first.path, second.path), force=force)
        rows = [(each.part, each.what, each.a, each.b) for each in found]
        write_atomic(place, render_diff(first.artifact, second.artifact, rows).encode())
    return Comparison(a=_label(first), b=_label(second), differences=found, path=None if place is None else str(place))


def differences(a: Artifact, b: Artifact) -> tuple[Difference, ...]:
    """All that differs between two artifacts, in the order in which a reader asks."""
    return differing(facts(a), facts(b))


def differing(left: Facts, right: Facts) -> tuple[Difference, ...]:
    """What differs between the facts of two artifacts."""
    return tuple(
        Difference(part=part, what=what, a=left.get((part, what)), b=right.get((part, what)))
        for part, what in dict.fromkeys([*left, *right])
        if left.get((part, what)) != right.get((part, what))
    )


def facts(this: Artifact) -> Facts:
    """What is compared of an artifact: values by part and name."""
    return dict(_facts(this))


def made(this: Artifact) -> Facts:
    """How it was made, of these facts; what was measured of it is left out."""
    return {(part, what): value for (part, what), value in _facts(this) if part in _MADE and what != "digest"}


def _label(stored: Stored) -> str:
    return f"{stored.artifact.name}@{stored.artifact.version}"


def _facts(this: Artifact) -> Iterator[tuple[tuple[str, str], Any]]:
    yield ("artifact", "status"), this.status
    yield ("artifact", "source"), this.source.sha256
    yield ("artifact", "target"), this.target.get("name")
    model = this.model
    for name in ("format", "backend", "numerics", "numerics_share", "size_bytes", "digest"):
        yield ("model", name), getattr(model, name)
    yield ("model", "rules"), model.quantization.rules if model.quantization else None
    yield ("model", "quantization"), model.quantization.method if model.quantization else None
    yield from _flat("model", "backend_options", model.backend_options.model_dump())
    yield from (
        (("accuracy", name), getattr(this.accuracy, name))
        for name in (
            "metric", "samples", "baseline", "optimized", "drop", "drop_ci90", "limit_text", "verdict",
            "errors_baseline", "errors_optimized", "simulated",
        )
    )  # fmt: skip
    for record in this.latency:
        at = f"batch {record.batch}"
        yield ("latency", f"{at} p50 ms"), record.optimized.p50 if record.optimized else None
        yield ("latency", f"{at} speedup"), record.speedup
        yield ("latency", f"{at} threads"), record.threads
        yield ("latency", f"{at} device"), record.device
    for position, stage in enumerate(this.lineage, start=1):
        yield ("lineage", f"{position}"), stage.stage
        yield from _flat("lineage", f"{position} {stage.stage}", stage.options)
    yield from _flat("environment", "", this.environment)


def _flat(part: str, name: str, value: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    """Nested options as rows with dotted names."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key), item)
    else:
        yield (part, name), value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(_cell, value))
    return str(value)
