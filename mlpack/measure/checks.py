"""A gate's answers: pure functions from what was measured and what is allowed to a Check."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.gate import Check
from mlpack.measure.launches import calls_at_least, calls_at_most, p99_over_launches
from mlpack.measure.limits import judge, points
from mlpack.measure.other_launches import share_of_all
from mlpack.measure.percentiles import values_needed
from mlpack.measure.proportions import lower_rate, upper_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.core.artifact import GroupRecord
    from mlpack.core.gate import Answer
    from mlpack.measure.limits import Comparison, Limit
    from mlpack.measure.metrics import Metric
    from mlpack.measure.quantities import Bound, Ceiling

_TWO_SIDED_90 = 0.90
_TWO_SIDED_95 = 0.95
_P99 = 0.99
_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "KB"), (1, "B"))


def accuracy(against: str, found: Comparison) -> Check:
    """The drop of a paired comparison."""
    low, high = (points(end, found) for end in found.drop_ci90)
    errors = ""
    if found.errors_baseline is not None:
        errors = f"; errors {found.errors_baseline:,} → {found.errors_optimized:,}"
    return Check(
        name=f"accuracy, against {against}",
        verdict=found.verdict,
        measured=found.drop,
        interval=found.drop_ci90,
        confidence=0.90,
        limit=found.limit,
        unit=found.metric,
        says=f"{found.metric} drops {points(found.drop, found)} [{low}, {high}] on {found.samples:,} samples{errors}",
        allowed="" if found.limit is None else f"{points(found.limit, found)} ({found.limit_text})",
    )


def worst_group(against: str, groups: Sequence[GroupRecord], limit: Limit, metric: Metric) -> Check:
    """The group that decides: one that fails, else one that cannot tell, else the one with the largest drop."""
    order: tuple[Answer, ...] = ("fail", "inconclusive", "none", "likely", "pass")
    worst = min(groups, key=lambda each: (order.index(each.verdict), -(each.drop or 0.0)))
    name = f"worst of {len(groups)} groups, against {against}"
    if worst.drop is None or worst.interval is None or worst.baseline is None:
        return Check(name=name, verdict="inconclusive", says=f"{metric.name} is undefined within {worst.group}")
    scale, unit = (100, "pt") if metric.percent else (1, "")
    low, high = (end * scale for end in worst.interval)
    return Check(
        name=name,
        verdict=worst.verdict,
        measured=worst.drop,
        interval=worst.interval,
        limit=limit.absolute(worst.baseline, metric),
        unit=metric.name,
        says=f"{worst.group} drops {worst.drop * scale:.2f}{unit} [{low:.2f}, {high:.2f}] on {worst.samples:,} samples",
        allowed=limit.text,
    )


def p50_regression(
    against: str,
    batch: int,
    speedup: float,
    ci95: tuple[float, float] | None,
    allowed: float,
    *,
    steady: bool,
    baseline_steady: bool,
) -> Check:
    """How much longer the median takes than the baseline's, measured in turns; `allowed` is a share.

    What disturbs makes slower: a disturbed baseline makes the other look fast.
    """
    slower = 1 / speedup - 1
    name = f"P50 at batch {batch}, against {against}"
    if ci95 is None:
        return skipped(name, "a single launch has no interval")
    low, high = 1 / ci95[1] - 1, 1 / ci95[0] - 1
    return Check(
        name=name,
        verdict=_settled(judge(slower, (low, high), allowed), steady=steady, pass_stands=baseline_steady),
        measured=slower,
        interval=(low, high),
        confidence=_TWO_SIDED_95,
        limit=allowed,
        unit="share",
        says=f"{slower:+.1%} [{low:+.1%}, {high:+.1%}]",
        allowed=f"{allowed:+.0%}",
    )


def p99(launches: Sequence[np.ndarray], limit_ms: float, batch: int = 1, *, steady: bool) -> Check:
    """The 99th percentile of all launches' calls, ms, at one batch size against a limit."""
    n, needed = sum(map(len, launches)), values_needed(_P99)
    if n < needed:
        return Check(
            name=f"P99 at batch {batch}", verdict="inconclusive", limit=limit_ms, unit="ms", allowed=f"{limit_ms:g} ms",
            says=f"{n} calls cannot carry a P99: it needs {needed}",
        )  # fmt: skip
    found = p99_over_launches(launches)
    return _one_sided(f"P99 at batch {batch}", found.value, found.low, found.high, limit_ms, n, steady=steady)


def slow_share(launches: Sequence[np.ndarray], allowed: Bound, batch: int = 1, *, steady: bool) -> Check:
    """The share of all launches' calls, ms, at one batch size over a bound.

    The interval is the exact one (Clopper-Pearson), of calls as much faster or slower as the launches leave possible;
    it is no narrower than that of the share in all launches that there could be.
    """
    sure = (calls_at_least(launches, _TWO_SIDED_90), calls_at_most(launches, _TWO_SIDED_90))
    slow, fewest, most = (int((ms > allowed.ms).sum()) for ms in (np.concatenate(list(launches)), *sure))
    n = sum(map(len, launches))
    low, high = lower_rate(min(slow, fewest), n), upper_rate(max(slow, most), n)
    if len(launches) > 1:
        least, greatest = share_of_all(launches, allowed.ms, _TWO_SIDED_90)
        low, high = min(low, least), max(high, greatest)
    return Check(
        name=f"calls over {allowed.ms:g} ms at batch {batch}",
        verdict=_settled(judge(slow / n, (low, high), allowed.share), steady=steady),
        measured=slow / n,
        interval=(low, high),
        confidence=_TWO_SIDED_90,
        limit=allowed.share,
        unit="share",
        says=f"{slow:,} of {n:,} = {slow / n:.2%} [{low:.2%}, {high:.2%}]",
        allowed=f"{allowed.share:.2%}",
    )


def size(model_bytes: int, baseline_bytes: int | None, allowed: Ceiling) -> Check:
    """The model's size; files have no interval."""
    limit = allowed.over(baseline_bytes)
    if limit is None:
        return skipped("size", f"{allowed.text} is relative, and the baseline's size is not known")
    return Check(
        name="size",
        verdict="pass" if model_bytes <= limit else "fail",
        measured=model_bytes,
        limit=limit,
        unit="bytes",
        says=amount(model_bytes),
        allowed=f"{amount(limit)} ({allowed.text})",
    )


def memory(peaks: Sequence[int], baseline_peaks: Sequence[int] | None, allowed: Ceiling) -> Check:
    """The peak resident memory of a process that loads and serves the model; the interval is that of all launches."""
    limit = allowed.over(None if baseline_peaks is None else float(np.median(baseline_peaks)))
    if limit is None:
        return skipped("memory", f"{allowed.text} is relative, and the baseline's model is not at hand")
    low, high = float(min(peaks)), float(max(peaks))
    return Check(
        name="memory",
        verdict="pass" if high <= limit else "fail" if low > limit else "inconclusive",
        measured=float(np.median(peaks)),
        interval=(low, high),
        limit=limit,
        unit="bytes",
        says=f"{amount(float(np.median(peaks)))} [{amount(low)}, {amount(high)}] in {len(peaks)} launches",
        allowed=f"{amount(limit)} ({allowed.text})",
    )


def skipped(name: str, why: str) -> Check:
    """A question that was not asked of anything, and why."""
    return Check(name=name, verdict="skipped", says=why)


def amount(number: float) -> str:
    """Bytes with a unit."""
    for factor, unit in _UNITS:
        if number >= factor:
            return f"{number / factor:.3g} {unit}" if number / factor < 1000 else f"{number / factor:.0f} {unit}"  # noqa: PLR2004
    return f"{number:.0f} B"


def _one_sided(
    name: str, value: float, low: float | None, high: float | None, limit: float, n: int, *, steady: bool
) -> Check:
    bottom, top = low if low is not None else -math.inf, high if high is not None else math.inf
    answer: Answer = "pass" if top <= limit else "fail" if bottom > limit else "inconclusive"
    return Check(
        name=name,
        verdict=_settled(answer, steady=steady),
        measured=value,
        interval=(low, high),
        confidence=_TWO_SIDED_95,
        limit=limit,
        unit="ms",
        says=f"{value:.3g} ms [{_end(low)}, {_end(high)}] over {n:,} calls",
        allowed=f"{limit:g} ms",
    )


def _end(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _settled(answer: Answer, *, steady: bool, pass_stands: bool = True) -> Answer:
    """On a machine that was disturbed only a pass can still say something: what disturbs makes slower."""
    return answer if steady or (answer == "pass" and pass_stands) else "unstable"
