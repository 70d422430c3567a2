"""What people read of a `bench`: latencies, speeds from the same rounds, sweeps, and where the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.api.usage import usage_grid
from mlpack.core.summary import Grid
from mlpack.core.wording import count, milliseconds_interval, number, speed, times_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.api.timings import Benched, Result
    from mlpack.core.summary import Part
    from mlpack.measure.sweep import Sweep

_ENDED = {
    "precise": "the intervals are narrow enough",
    "launches": "these are the most that are made",
    "time": "the time for more was up",
}


def bench_summary(done: Benched) -> Iterator[Part]:
    """Its lines and tables."""
    first, *others = done.contenders
    columns = ("model", "runs as", "batch", "P50 ms", "95% interval", "P99 ms")
    yield ""
    yield Grid(columns, [row for each in done.contenders for row in _latency(each)], right=columns[2:])
    if any(row.timing.p99 is None for each in done.contenders for row in each.latency):
        yield "P99 –: too few calls to carry it; --seconds raises their number"
    if any(row.floor_ms for each in done.contenders for row in each.latency):
        yield ""
        yield from _floors(done)
    if first.cold_start_s is not None:
        yield ""
        yield from _starts(done)
    if others and not done.against:
        speeds = ("model", "runs as", "batch", "speed", "95% interval")
        yield ""
        yield f"speed over {first.label} on {first.backend}, from the same rounds"
        yield Grid(speeds, [row for each in others for row in _speeds(each)], right=speeds[2:])
    for result in done.contenders:
        if result.sweep is not None:
            yield from _swept(result, result.sweep)
    for each in done.against:
        within = f" {times_interval(each.speedup_ci95)}" if each.speedup_ci95 else ""
        yield f"batch {each.batch}: {first.label} is {speed(each.speedup)}{within} as fast as {each.label}"
    yield ""
    yield usage_grid([(each.label, _runs_as(each), each.usage) for each in done.contenders])
    if first.components:
        yield ""
        yield f"where the time goes: {first.label} on {first.backend}, batch {first.latency[0].batch}"
        parts = [(each.name, f"{each.p50:.3f}", f"{each.share:.1%}") for each in first.components]
        yield Grid(("component", "P50 ms", "share"), parts, right=("P50 ms", "share"))
    if first.lengths:
        yield ""
        yield "by length, one sample at a time, in one launch"
        cells = [(str(each.length), number(each.optimized or 0.0, 3)) for each in first.lengths]
        yield Grid(("length", "P50 ms"), cells, right=("length", "P50 ms"))
    yield ""
    yield f"{count(done.threads, 'thread')}, {done.machine['cpu']}, {done.rows} rows"
    yield f"{done.launches} launches each, in turns; intervals are over launches"
    yield f"no more launches, since {_ENDED[done.ended]}"


def _floors(done: Benched) -> Iterator[Part]:
    columns = ("model", "runs as", "batch", "floor ms", "P50 is")
    rows = [
        (*_named(each, index), str(row.batch), number(row.floor_ms, 2), f"{row.timing.p50 / row.floor_ms:,.0f} ×")
        for each in done.contenders
        for index, row in enumerate(each.latency)
        if row.floor_ms
    ]
    yield "floor: no run of this graph is faster on this CPU"
    yield Grid(columns, rows, right=columns[2:])


def _starts(done: Benched) -> Iterator[Part]:
    first, *others = done.contenders
    differs = f"differs from {first.backend}" if others else ""
    columns = ("model", "runs as", "first answer s", *([differs] if others else []))
    rows = [
        (*_named(each, 0), number(each.cold_start_s or 0.0, 3), *([_difference(each)] if others else []))
        for each in done.contenders
    ]
    yield "cold start: from a fresh process, nothing compiled yet, to its first answer"
    yield Grid(columns, rows, right=columns[2:])


def _difference(result: Result) -> str:
    """Relative L2, of the output that differs most."""
    return "" if result.difference is None else f"{result.difference:.1e}"


def _swept(result: Result, sweep: Sweep) -> Iterator[Part]:
    yield ""
    yield f"throughput of {result.label} on {result.backend}, one batch after the other"
    rows = [
        (str(batch), f"{rate:,.0f}", "knee" if batch == sweep.knee else "") for batch, rate in sweep.throughput.items()
    ]
    yield Grid(("batch", "samples/s", ""), rows, right=("batch", "samples/s"))
    yield f"from batch {sweep.knee} on a larger one gives less than a tenth more"
    if sweep.limit_ms is not None:
        best = "" if sweep.best is None else f"batch {sweep.best} gives the most with P99 within {sweep.limit_ms:g} ms"
        yield "; ".join(filter(None, (best, sweep.best_reason or "")))


def _latency(result: Result) -> Iterator[tuple[str, ...]]:
    for index, each in enumerate(result.latency):
        timing = each.timing
        p99 = "–" if timing.p99 is None else number(timing.p99, 3)
        measured = (number(timing.p50, 3), milliseconds_interval(timing.p50_ci95), p99)
        yield (*_named(result, index), str(each.batch), *measured)


def _speeds(result: Result) -> Iterator[tuple[str, ...]]:
    for index, each in enumerate(result.latency):
        yield (*_named(result, index), str(each.batch), speed(each.speedup), times_interval(each.speedup_ci95))


def _named(result: Result, index: int) -> tuple[str, str]:
    return ("", "") if index else (result.label, _runs_as(result))


def _runs_as(result: Result) -> str:
    return f"{result.numerics} · {result.backend}"
