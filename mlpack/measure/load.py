"""What a run of requests says: percentiles that the run can carry, throughput, errors, and what to know about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlpack.measure.launches import p50_over_launches
from mlpack.measure.percentiles import percentile, values_needed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlpack.measure.load_drive import Drive

Interval = tuple[float, float]
Arrivals = Literal["closed", "open"]

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_BLOCKS = 10
_FEWEST_BLOCKS = 5
_PER_BLOCK = 5
_GROWTH = 2.0
_STEADY_RISE = 0.8
_DEPENDENT = 1.5
_LATE_SHARE = 0.05
_RATE_KEPT = 0.98
_MOST_ERRORS = 20
_MANY = 100


@dataclass(frozen=True)
class Quantile:
    """A percentile in ms with its 95% interval, or None and the reason why the run has none."""

    name: str
    ms: float | None
    ci95: Interval | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Load:
    """What one run measured.

    Latency is counted from when a request was due (open loop) or sent (closed loop). Refused requests have none and
    stand in `errors`; those without an answer in time, and those that could not be sent in time, count as slower
    than all others. `rate_sent` and `lag_p99_ms` say how well the generator kept its schedule. `p50_blocks_ci95` is
    over `blocks` parts of the run, as requests of one moment resemble each other. `service_s` is the mean time from
    sending to answer.
    """

    arrivals: Arrivals
    asked: float
    seconds: float
    requests: int
    good: int
    errors: dict[str, int]
    unsent: int
    throughput: float
    percentiles: tuple[Quantile, ...]
    blocks: int
    p50_blocks_ci95: Interval | None
    rate_sent: float | None
    lag_p99_ms: float | None
    service_s: float
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The load in words: `4 clients`, `50/s`."""
        if self.arrivals == "open":
            return f"{self.asked:g}/s"
        return f"{self.asked:g} client{'' if self.asked == 1 else 's'}"

    def quantile(self, name: str) -> Quantile:
        """The percentile of this name."""
        return next(each for each in self.percentiles if each.name == name)


def summarize(drive: Drive, arrivals: Arrivals, asked: float) -> Load:
    """What a run of `asked` requests per second (open loop) or clients (closed loop) says."""
    good = [each for each in drive.answers if each.error is None]
    due = np.array([each.due for each in good])
    latencies_ms = np.array([each.done - each.due for each in good]) * 1e3
    endless = sum(each.late for each in drive.answers) + drive.unsent
    blocks, blocks_ci95, medians = _over_blocks(due - drive.start, latencies_ms, drive.seconds)
    sent = np.array([each.sent for each in drive.answers])
    lags_ms = np.array([each.sent - each.due for each in drive.answers]) * 1e3
    is_open = arrivals == "open"
    elapsed = max([drive.seconds, *(each.done - drive.start for each in good)])
    load = Load(
        arrivals=arrivals,
        asked=asked,
        seconds=drive.seconds,
        requests=len(drive.answers) + drive.unsent,
        good=len(good),
        errors=_grouped(each.error for each in drive.answers if each.error is not None),
        unsent=drive.unsent,
        throughput=len(good) / elapsed,
        percentiles=tuple(quantile(name, latencies_ms, endless) for name in PERCENTILES),
        blocks=blocks,
        p50_blocks_ci95=blocks_ci95,
        rate_sent=_rate(sent, drive) if is_open else None,
        lag_p99_ms=float(np.quantile(lags_ms, 0.99)) if is_open and len(lags_ms) else None,
        service_s=float(np.mean([each.done - each.sent for each in good])) if good else 0.0,
        notes=(),
    )
    notes = (*_kept_up(load, drive, latencies_ms, lags_ms), *_steady(load, medians), *_failures(load, endless))
    return replace(load, notes=notes)


def quantile(name: str, latencies_ms: np.ndarray, endless: int) -> Quantile:
    """A percentile of the latencies and of `endless` more requests that took longer than all of them.

    None where the order statistics of so many requests bound it on one side only.
    """
    q = PERCENTILES[name]
    n, needed = len(latencies_ms) + endless, values_needed(q)
    if n < needed:
        return Quantile(name, None, reason=f"{n} requests cannot carry it: its 95% interval needs at least {needed}")
    found = percentile(np.concatenate([latencies_ms, np.full(endless, np.finfo(np.float64).max)]), q)
    assert found.low is not None
    assert found.high is not None
    longest = float(latencies_ms.max()) if len(latencies_ms) else 0.0
    if found.high > longest:
        return Quantile(name, None, reason=f"{endless} of {n} requests had no answer in time: it lies among them")
    return Quantile(name, found.value, (found.low, found.high))


def shown(value: float) -> str:
    """Milliseconds or a rate as people read them: three digits, never as a power of ten."""
    return f"{value:,.0f}" if value >= _MANY else f"{value:.3g}"


def _grouped(errors: Iterable[str]) -> dict[str, int]:
    """How often each error came, most often first; servers that put an id into each message fill no table."""
    counts = Counter(errors).most_common()
    others = sum(times for _, times in counts[_MOST_ERRORS:])
    return {**dict(counts[:_MOST_ERRORS]), **({"other errors": others} if others else {})}


def _over_blocks(
    due_s: np.ndarray, latencies_ms: np.ndarray, seconds: float
) -> tuple[int, Interval | None, list[float]]:
    """The number of blocks of equal time, the interval of P50 over them, and their medians; 0 where too few."""
    for count in (_BLOCKS, _FEWEST_BLOCKS):
        which = np.clip((due_s / seconds * count).astype(int), 0, count - 1)
        parts = [latencies_ms[which == block] for block in range(count)]
        if min(map(len, parts)) >= _PER_BLOCK:
            return count, p50_over_launches(parts)[1], [float(np.median(part)) for part in parts]
    return 0, None, []


def _rate(sent: np.ndarray, drive: Drive) -> float:
    """Requests sent per second of the time that it took to send them."""
    return len(sent) / max(drive.seconds, float(sent.max()) - drive.start) if len(sent) else 0.0


def _kept_up(load: Load, drive: Drive, latencies_ms: np.ndarray, lags_ms: np.ndarray) -> list[str]:
    """Whether the generator did what it was asked to."""
    if load.arrivals == "closed":
        return []
    notes = []
    assert load.rate_sent is not None
    if drive.waited:
        notes.append(
            f"{drive.waited} requests found all connections busy and waited for one; the wait is in their latency"
        )
    elif len(latencies_ms) and lags_ms.mean() > _LATE_SHARE * latencies_ms.mean():
        notes.append(
            f"the generator was late (1% of the requests were sent over {shown(load.lag_p99_ms or 0.0)} ms after they "
            "were due); its own delay is in the latency"
        )
    due = load.requests / drive.seconds
    if load.rate_sent < _RATE_KEPT * due:
        notes.append(f"{shown(load.rate_sent)} requests/s were sent instead of {shown(due)}")
    if load.unsent:
        notes.append(f"{load.unsent} requests were due and not sent before the end; they count as slower than all")
    return notes


def _steady(load: Load, medians: list[float]) -> list[str]:
    """Whether the run was long enough to be one thing, and whether its requests tell independent stories."""
    if not medians:
        return ["a part of the run has too few answers to see how steady the server was"] if load.good else []
    rise = float(np.corrcoef(np.arange(len(medians)), medians)[0, 1]) if np.ptp(medians) > 0 else 0.0
    if medians[-1] > _GROWTH * medians[0] and rise > _STEADY_RISE:
        grew = f"the latency grew from {shown(medians[0])} to {shown(medians[-1])} ms"
        return [f"{grew}: the server does not keep up with this load, and the percentiles say how long the run was"]
    p50 = load.quantile("p50")
    if p50.ci95 is None or load.p50_blocks_ci95 is None:
        return []
    alone, over_blocks = (high - low for low, high in (p50.ci95, load.p50_blocks_ci95))
    if over_blocks > _DEPENDENT * alone:
        within = f"[{shown(load.p50_blocks_ci95[0])}, {shown(load.p50_blocks_ci95[1])}]"
        alike = f"requests of one moment resemble each other: over {load.blocks} parts of the run P50 lies in {within}"
        return [f"{alike}; the other intervals are too narrow"]
    return []


def _failures(load: Load, endless: int) -> list[str]:
    refused = load.requests - load.good - endless
    return [f"{refused} of {load.requests} requests failed: the latency is that of the others"] if refused else []
