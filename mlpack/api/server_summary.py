"""What people read of a `bench_server`: latency under load, what failed, and where the time of a request goes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mlpack.core.summary import Grid
from mlpack.core.wording import number
from mlpack.measure.load import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.api.server_timings import LoadResult, ServerBenched
    from mlpack.core.summary import Part

_MOST_ERRORS = 5
_WIDTH = 80
_PARTS = ("network", "queue", "preprocess", "compute", "postprocess")
_ABSENT = "–"


def server_summary(done: ServerBenched) -> Iterator[Part]:
    """Its lines and tables."""
    columns = ("load", "sent", "failed", "good/s", "P50 ms", "95% of P50", "P90", "P99", "P99.9")
    yield ""
    yield Grid(columns, [_row(each) for each in done.loads], right=columns[1:])
    for each in done.loads:
        for text, times in list(each.load.errors.items())[:_MOST_ERRORS]:
            yield f"{each.load.label}, failed {times} times: {text}"
    if missing := _missing(done):
        yield f"{_ABSENT}: {missing}"
    yield from _split(done)
    version = f" version {done.version}" if done.version else ""
    yield ""
    yield f"{done.model}{version} on {done.server} at {done.url}"
    rows = "synthetic rows" if done.rows == "synthetic" else f"rows of {done.rows}"
    time = f"{number(done.loads[0].load.seconds)} s each after a warm-up"
    yield f"batch {done.batch}, {rows} as {done.form}, {time}"
    if done.loads[0].load.arrivals == "open":
        yield "Poisson arrivals; latency counts from when a request was due"
    else:
        yield "closed loops: a stall costs each client one request; --rate shows all it delays"
    yield from done.notes


def _row(result: LoadResult) -> tuple[str, ...]:
    load = result.load
    cells = [_ABSENT if each.ms is None else shown(each.ms) for each in load.percentiles]
    bounds = load.p50_blocks_ci95 or load.quantile("p50").ci95
    within = f"[{shown(bounds[0])}, {shown(bounds[1])}]" if bounds else ""
    failed = f"{load.requests - load.good:,}"
    return (load.label, f"{load.requests:,}", failed, shown(load.throughput), cells[0], within, *cells[1:])


def _missing(done: ServerBenched) -> str:
    """Why the first absent percentile of the table is absent; they mostly are for the same reason."""
    found = [each for load in done.loads for each in load.load.percentiles if each.ms is None]
    return found[0].reason or "" if found else ""


def _split(done: ServerBenched) -> Iterator[Part]:
    split = [each for each in done.loads if each.split.parts]
    if split:
        yield ""
        yield f"where the time of a mean request goes, in ms, by {split[0].split.source}"
        rows = [
            (each.load.label, *(f"{shown(part.mean_ms)} ({part.share:.0%})" for part in each.split.parts))
            for each in split
        ]
        yield Grid(("load", *_PARTS), rows, right=_PARTS)
    for each in done.loads:
        if each.split.reason and (split or each is done.loads[0]):
            told = f"{each.load.label}: only the total is known: {each.split.reason}"
            yield textwrap.fill(told, _WIDTH, subsequent_indent="  ")
