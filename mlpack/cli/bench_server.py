"""`mlpack bench --server`: latency under load, what failed, and where the time of a request goes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mlpack.cli.wording import number
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from mlpack.api.server_timings import LoadResult, ServerBenched
    from mlpack.cli.screen import Screen

_MOST_ERRORS = 5
_WIDTH = 80
_PARTS = ("network", "queue", "preprocess", "compute", "postprocess")
_ABSENT = "–"


def measure(
    screen: Screen,
    url: str,
    model: str | None,
    *,
    rate: str | None,
    clients: str | None,
    seconds: float | None,
    batch: str | None,
    data: str | None,
) -> None:
    """Measure and draw."""
    from mlpack.api.bench_server import SECONDS, bench_server

    with screen.progress() as reporter:
        done = bench_server(
            url,
            model=model,
            rates=None if rate is None else _numbers("--rate", rate, "--rate 10,50"),
            clients=None if clients is None else _whole("--clients", clients, "--clients 1,4"),
            seconds=SECONDS if seconds is None else seconds,
            batch=None if batch is None else _one("--batch", batch),
            data=data,
            reporter=reporter,
        )

    def human(screen: Screen) -> None:
        _draw(screen, done)

    screen.result(done.document(), human)
    for each in done.loads:
        for note in (*each.load.notes, *([each.split.note] if each.split.note else [])):
            screen.warn(f"{each.load.label}: {note}")


def _numbers(flag: str, text: str, hint: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text}: numbers with commas between", hint) from None


def _whole(flag: str, text: str, hint: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"{flag} {text}: whole numbers with commas between", hint)
    return [int(word) for word in words]


def _one(flag: str, text: str) -> int:
    numbers = _whole(flag, text, f"{flag} 1")
    if len(numbers) != 1:
        raise UsageError(f"{flag} {text}: a server is measured at one batch size at a time", f"{flag} {numbers[0]}")
    return numbers[0]


def _draw(screen: Screen, done: ServerBenched) -> None:
    columns = ("load", "sent", "failed", "good/s", "P50 ms", "95% of P50", "P90", "P99", "P99.9")
    screen.print("")
    screen.table(columns, [_row(each) for each in done.loads], right=columns[1:])
    for each in done.loads:
        for text, times in list(each.load.errors.items())[:_MOST_ERRORS]:
            screen.print(f"{each.load.label}, failed {times} times: {text}")
    if missing := _missing(done):
        screen.print(f"{_ABSENT}: {missing}")
    _draw_parts(screen, done)
    version = f" version {done.version}" if done.version else ""
    screen.print(f"\n{done.model}{version} on {done.server} at {done.url}")
    rows = "synthetic rows" if done.rows == "synthetic" else f"rows of {done.rows}"
    time = f"{number(done.loads[0].load.seconds)} s each after a warm-up"
    screen.print(f"batch {done.batch}, {rows} as {done.form}, {time}")
    if done.loads[0].load.arrivals == "open":
        screen.print("Poisson arrivals; latency counts from when a request was due")
    else:
        screen.print("closed loops: a stall costs each client one request; --rate shows all it delays")
    for note in done.notes:
        screen.say(note)


def _row(result: LoadResult) -> tuple[str, ...]:
    from mlpack.measure.load import shown

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


def _draw_parts(screen: Screen, done: ServerBenched) -> None:
    from mlpack.measure.load import shown

    split = [each for each in done.loads if each.split.parts]
    if split:
        screen.print(f"\nwhere the time of a mean request goes, in ms, by {split[0].split.source}")
        rows = [
            (each.load.label, *(f"{shown(part.mean_ms)} ({part.share:.0%})" for part in each.split.parts))
            for each in split
        ]
        screen.table(("load", *_PARTS), rows, right=_PARTS)
    for each in done.loads:
        if each.split.reason and (split or each is done.loads[0]):
            told = f"{each.load.label}: only the total is known: {each.split.reason}"
            screen.print(textwrap.fill(told, _WIDTH, subsequent_indent="  "))
