"""What `bench` measured, as records: contenders, batch sizes, components."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlpack.api.usage import Usage, usage_of
from mlpack.core.artifact import ComponentRecord, LengthRecord, Timing
from mlpack.core.summary import Told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.api.contenders import Contender
    from mlpack.core.summary import Part
    from mlpack.engine.cache import Done
    from mlpack.measure.sweep import Sweep

Interval = tuple[float, float]


@dataclass(frozen=True)
class Timed:
    """One contender at one batch size, in ms. `speedup`: how many times as fast as the first contender.

    `floor_ms` is what no run of an ONNX graph is faster than here; None for other formats.
    """

    batch: int
    timing: Timing
    speedup: float | None = None
    speedup_ci95: Interval | None = None
    floor_ms: float | None = None

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        timing = self.timing.model_dump(mode="json")
        told = {"speedup": self.speedup, "speedup_ci95": self.speedup_ci95, "floor_ms": self.floor_ms}
        return {"batch": self.batch, **timing, **told}


@dataclass(frozen=True)
class Result:
    """What was measured of one contender; of the first one also components, at the first batch size, and lengths.

    `sweep` judges its batch sizes, where there are three or more; `usage` is what it takes beside time. `cold_start_s`
    is the median of so many `starts`: from the start of a fresh process to its first answer. `difference` is the
    largest relative L2 difference of an output to the first contender's.
    """

    label: str
    backend: str
    numerics: str
    latency: tuple[Timed, ...]
    usage: Usage
    components: tuple[ComponentRecord, ...] = ()
    lengths: tuple[LengthRecord, ...] = ()
    sweep: Sweep | None = None
    cold_start_s: float | None = None
    starts: int = 0
    difference: float | None = None

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "label": self.label,
            "backend": self.backend,
            "numerics": self.numerics,
            "latency": [each.document() for each in self.latency],
            "usage": asdict(self.usage),
            "components": [each.model_dump(mode="json") for each in self.components],
            "lengths": [{"length": each.length, "p50": each.optimized} for each in self.lengths],
            "sweep": None if self.sweep is None else asdict(self.sweep),
            "cold_start": {"seconds": self.cold_start_s, "starts": self.starts},
            "difference": self.difference,
        }


@dataclass(frozen=True)
class Against:
    """How many times as fast as the artifact given with `against` the first contender is, at one batch size."""

    label: str
    batch: int
    speedup: float
    speedup_ci95: Interval | None


@dataclass(frozen=True)
class Benched(Told):
    """What `bench` measured. `rows` says what was run: real or synthetic rows; `steady`: the timings settled.

    `notes` say what disturbed them, and `ended` why no more launches were made: `precise`, `launches` or `time`.
    """

    threads: int
    machine: dict[str, Any]
    contenders: tuple[Result, ...]
    against: tuple[Against, ...]
    left_out: tuple[str, ...]
    rows: str
    launches: int
    steady: bool
    notes: tuple[str, ...]
    ended: str

    def summary(self) -> Iterator[Part]:
        """Latencies, speeds, and where the time goes."""
        from mlpack.api.bench_summary import bench_summary

        return bench_summary(self)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "threads": self.threads,
            "machine": self.machine,
            "unit": "ms",
            "rows": self.rows,
            "launches": self.launches,
            "steady": self.steady,
            "notes": list(self.notes),
            "ended": self.ended,
            "contenders": [each.document() for each in self.contenders],
            "against": [asdict(each) for each in self.against],
            "left_out": list(self.left_out),
        }


def result_of(
    contender: Contender,
    done: Done,
    max_p99_ms: float | None,
    *,
    first: bool,
    parts: Mapping[str, float],
    floors: Mapping[int, float],
) -> Result:
    """The rows of one contender in the report of profile_latency; a sweep from three batch sizes on.

    `parts` are ms before and after the model, which its components are told with; `floors` are by batch size.
    """
    from mlpack.api.pipeline_timings import with_pipeline
    from mlpack.measure.sweep import FEWEST, sweep
    from mlpack.stages.profile_latency import OPTIMIZED

    key = OPTIMIZED if first else contender.key
    rows = [row for row in done.report.tables["latency"] if row["contender"] == key]
    components = done.report.tables["components"] if first else []
    latency = tuple(_timed(row, floors.get(row["batch"])) for row in rows)
    swept = sweep({each.batch: each.timing for each in latency}, max_p99_ms) if len(latency) >= FEWEST else None
    by_length = done.report.tables["lengths"] if first else []
    metrics = done.report.metrics
    seconds = metrics["starts_seconds"].get(key, [])
    return Result(
        sweep=swept,
        cold_start_s=statistics.median(seconds) if seconds else None,
        starts=len(seconds),
        difference=None if first else metrics["differences"].get(key),
        label=contender.label,
        backend=contender.backend,
        numerics=contender.model.numerics,
        latency=latency,
        usage=usage_of(done.report.metrics, key),
        components=with_pipeline([ComponentRecord.model_validate(row) for row in components], parts),
        lengths=tuple(LengthRecord(length=row["length"], baseline=None, optimized=row[OPTIMIZED]) for row in by_length),
    )


def _timed(row: dict[str, Any], floor_ms: float | None) -> Timed:
    """The stage says how much faster the first contender is than this one: turned round."""
    timing = Timing.model_validate({name: row[name] for name in Timing.model_fields})
    ratio, interval = row.get("speedup_over"), row.get("speedup_over_ci95")
    return Timed(
        batch=row["batch"],
        timing=timing,
        speedup=None if ratio is None else 1 / ratio,
        speedup_ci95=None if interval is None else (1 / interval[1], 1 / interval[0]),
        floor_ms=floor_ms,
    )


def against_of(rival: Result) -> tuple[Against, ...]:
    """The speeds over a rival, turned back: how the first contender stands to the rival."""
    found = []
    for each in rival.latency:
        assert each.speedup is not None
        interval = each.speedup_ci95
        found.append(
            Against(
                label=rival.label,
                batch=each.batch,
                speedup=1 / each.speedup,
                speedup_ci95=None if interval is None else (1 / interval[1], 1 / interval[0]),
            )
        )
    return tuple(found)
