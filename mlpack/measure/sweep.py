"""A batch sweep: throughput against batch size, where it stops to grow, and the best batch within a latency limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Timing

BATCHES = (1, 2, 4, 8, 16, 32, 64)
FEWEST = 3
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Sweep:
    """What a sweep over batch sizes says.

    `throughput` is samples per second by batch size, from medians. `knee` is the smallest batch size that gives 90%
    of the most. `best` gives the most with the whole interval of its P99 within the limit; None where no limit was
    given or none holds it, and `best_reason` says which P99 were missing.
    """

    throughput: dict[int, float]
    knee: int
    limit_ms: float | None
    best: int | None
    best_reason: str | None


def sweep(timings: Mapping[int, Timing], limit_ms: float | None) -> Sweep:
    """Judge timings by batch size; a batch size without a P99 is never the best."""
    throughput = {batch: batch / timing.p50 * 1e3 for batch, timing in timings.items()}
    most = max(throughput.values())
    knee = min(batch for batch, rate in throughput.items() if rate >= _NEARLY_ALL * most)
    if limit_ms is None:
        return Sweep(throughput, knee, None, None, None)
    known = {batch: timing.p99_ci95[1] for batch, timing in timings.items() if timing.p99_ci95 is not None}
    within = [batch for batch, most_ms in known.items() if most_ms <= limit_ms]
    best = max(within, key=lambda batch: throughput[batch], default=None)
    missing = sorted(set(timings) - set(known))
    reason = None
    if missing:
        reason = f"too few calls for a P99 at batch {', '.join(map(str, missing))}: spend more --seconds"
    elif best is None:
        reason = f"no batch size has its P99 surely within {limit_ms:g} ms"
    return Sweep(throughput, knee, limit_ms, best, reason)
