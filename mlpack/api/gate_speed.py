"""The checks of a gate that are measured on this machine: medians beside the baseline's, P99, memory; and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpack.api.lookup import intact_model
from mlpack.errors import UsageError
from mlpack.measure import checks
from mlpack.measure.disturbance import notes
from mlpack.measure.percentiles import values_needed
from mlpack.measure.quantities import Bound, Ceiling, bound, ceiling, milliseconds, share

if TYPE_CHECKING:
    import numpy as np

    from mlpack.api.baselines import Against
    from mlpack.core.artifact import Stored
    from mlpack.core.gate import Check
    from mlpack.core.model import Model
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context

USUAL_REGRESSION = 0.10
_BASELINE = "baseline"
_SECONDS = 0.4
_LAUNCHES = 5


@dataclass(frozen=True)
class Speed:
    """What is asked about time, size and memory. `explicit`: a regression limit was given by hand."""

    regression: float
    explicit: bool
    measured: bool
    p99_ms: float | None
    slow: Bound | None
    size: Ceiling | None
    memory: Ceiling | None

    @classmethod
    def parse(
        cls,
        regression: str | None,
        p99: str | None,
        slow: str | None,
        size: str | None,
        memory: str | None,
        *,
        measured: bool,
    ) -> Speed:
        """Read the flags.

        Raises:
            UsageError: an amount that cannot be read, or a limit on what shall not be measured.
        """
        if not measured and any(each is not None for each in (regression, p99, slow, memory)):
            raise UsageError(
                "--no-latency measures nothing that these limits could be held to", "leave --no-latency out"
            )
        return cls(
            regression=USUAL_REGRESSION if regression is None else share(regression, "--max-p50-regression"),
            explicit=regression is not None,
            measured=measured,
            p99_ms=None if p99 is None else milliseconds(p99, "--max-p99"),
            slow=None if slow is None else bound(slow, "--max-slow"),
            size=None if size is None else ceiling(size, "--max-size"),
            memory=None if memory is None else ceiling(memory, "--max-memory"),
        )

    def refuse_without_model(self, baseline: Against) -> None:
        """A median is compared by measuring both here, never with a number from elsewhere.

        Raises:
            UsageError: a regression limit, and the baseline's model is not at hand.
        """
        if self.explicit and baseline.stored is None:
            raise UsageError(
                f"a P50 regression is measured beside the baseline's model, which {baseline.label} does not hold",
                "give the baseline as an artifact (--against NAME@VERSION), or leave --max-p50-regression out",
            )

    @property
    def of_calls(self) -> bool:
        """Whether single calls are asked about: they need hundreds."""
        return self.p99_ms is not None or self.slow is not None


def speed_checks(
    stored: Stored, baseline: Against, asked: Speed, context: Context
) -> tuple[list[Check], tuple[str, ...]]:
    """Time what is asked for in one run and judge it; also what disturbed the timing.

    Raises:
        UsageError: the artifact does not run on this machine, and something is to be timed.
        StageFailed: a library refuses a model.
    """
    found: list[Check] = []
    disturbed: tuple[str, ...] = ()
    if asked.measured and (baseline.stored is not None or asked.of_calls or asked.memory is not None):
        found, disturbed = _timed(stored, baseline, asked, context)
    if asked.size is not None:
        found.append(checks.size(stored.artifact.model.size_bytes, baseline.size_bytes, asked.size))
    return found, disturbed


def _timed(stored: Stored, baseline: Against, asked: Speed, context: Context) -> tuple[list[Check], tuple[str, ...]]:
    elsewhere = _not_here(stored) or (baseline.stored and _not_here(baseline.stored)) or _differ(stored, baseline)
    if elsewhere:
        if asked.explicit or asked.of_calls or asked.memory is not None:
            raise UsageError(f"nothing can be timed: {elsewhere}", "gate on a machine of the target, or --no-latency")
        return [checks.skipped("P50", elsewhere)], ()
    done = _time(stored, baseline, asked, context)
    steady = done.report.metrics["steady"]
    rows = [row for row in done.report.tables["latency"] if row["contender"] == _BASELINE]
    quiet = {"steady": steady, "baseline_steady": _BASELINE not in done.report.metrics["rough"]}
    found = [
        checks.p50_regression(
            baseline.label, row["batch"], row["speedup_over"], row["speedup_over_ci95"], asked.regression, **quiet
        )
        for row in rows
    ]
    batch, calls = _calls(done)
    if asked.p99_ms is not None:
        found.append(checks.p99(calls, asked.p99_ms, batch, steady=steady))
    if asked.slow is not None:
        found.append(checks.slow_share(calls, asked.slow, batch, steady=steady))
    if asked.memory is not None:
        peaks = done.report.metrics["peak_rss_bytes"]
        found.append(checks.memory(peaks["optimized"], peaks.get(_BASELINE), asked.memory))
    return found, notes(done.report.metrics)


def _not_here(stored: Stored) -> str | None:
    this = stored.artifact
    if this.target.get("kind") == "cpu" and this.model.backend_options.graph_optimizations != "off":
        return None
    return f"{this.name}@{this.version} is made for {this.target.get('title', 'another machine')}, which is not here"


def _differ(stored: Stored, baseline: Against) -> str | None:
    """Both are timed on the same rows, so both have to take them."""
    if baseline.stored is None:
        return None
    mine, theirs = (_form(each.artifact.model.inputs) for each in (stored, baseline.stored))
    return None if mine == theirs else f"{baseline.label} takes other inputs"


def _form(inputs: Any) -> Any:
    return {
        spec.name: (spec.dtype, tuple(dim if isinstance(dim, int) else None for dim in spec.dims)) for spec in inputs
    }


def _time(stored: Stored, baseline: Against, asked: Speed, context: Context) -> Done:
    from dataclasses import replace

    from mlpack.core.dataset import PARTS
    from mlpack.datasets import open_data
    from mlpack.datasets.ref import make_ref
    from mlpack.engine.run import run
    from mlpack.stages.profile_latency import ProfileLatency

    golden = str(stored.path / "golden" / "inputs.npz")
    data = open_data(golden)
    context = replace(context, data=make_ref(golden, data), parts=dict.fromkeys(PARTS, data.fingerprint))
    rivals: dict[str, Model] = {}
    if baseline.stored is not None:
        rivals[_BASELINE] = intact_model(baseline.stored)
    stage = ProfileLatency(launches=_LAUNCHES, seconds=_seconds(stored, asked), components=False)
    label = f"timing {stored.artifact.name}@{stored.artifact.version}" + (
        " and the baseline in turns" if rivals else ""
    )
    return run(stage, intact_model(stored), context, rivals=rivals, label=label)


def _seconds(stored: Stored, asked: Speed) -> float:
    """Long enough for the calls that a P99 needs, with a third to spare."""
    timed = [record.optimized for record in stored.artifact.latency if record.optimized is not None]
    if not asked.of_calls or not timed:
        return _SECONDS
    return max(_SECONDS, 1.34 * values_needed(0.99) / _LAUNCHES * timed[0].p50 / 1e3)


def _calls(done: Done) -> tuple[int, list[np.ndarray]]:
    """The first batch size, and the calls of each launch of the artifact at it, ms."""
    from mlpack.core.arrays import load_arrays
    from mlpack.stages.profile_latency import OPTIMIZED, SAMPLES

    batch = done.report.tables["latency"][0]["batch"]
    start = f"{OPTIMIZED}/{batch}/"
    return batch, [ms for name, ms in load_arrays(done.file(SAMPLES)).items() if name.startswith(start)]
