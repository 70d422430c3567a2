"""Verdicts that no enumeration reaches, simulated at their limit: clusters, shares of errors, groups, and calls."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.core.threads import usable_threads
from mlpack.measure import checks
from mlpack.measure.limits import Limit, compare
from mlpack.measure.metrics import metric
from mlpack.measure.quantities import Bound
from mlpack.measure.slices import drops_by_group

if TYPE_CHECKING:
    from collections.abc import Callable

HARM, GAIN = 0.04, 0.02
CALLS, LAUNCHES = 300, 5
# Standard normal quantiles.
_Z95, _Z99 = 1.6448536, 2.3263479

Case = tuple[str, "Callable[[np.random.Generator], str]"]


def simulated(repeats: int) -> list[dict[str, Any]]:
    """How often each case passes a model, or a time, that is exactly at its limit."""
    cases = [*_clusters(), *_errors(), *_groups(), *_launches()]
    with ProcessPoolExecutor(usable_threads()) as pool:
        waiting = [pool.submit(_passed, play, repeats) for _, play in cases]
        return [
            {"case": name, "false_pass": done.result() / repeats, "repeats": repeats}
            for (name, _), done in zip(cases, waiting, strict=True)
        ]


def _passed(play: Callable[[np.random.Generator], str], repeats: int) -> int:
    rng = np.random.default_rng(0)
    return sum(play(rng) == "pass" for _ in range(repeats))


def _clusters() -> list[Case]:
    """Sizes are log-normal around 4.5; answers flip by whole clusters, or with a share of each cluster's own."""
    return [
        (f"{clusters} clusters, sizes log-normal (sd {spread}), {how} flip",
         partial(clustered, clusters=clusters, spread=spread, whole=whole))
        for clusters in (100, 400)
        for spread in (0.0, 0.5, 1.0, 1.5)
        for how, whole in (("whole clusters", True), ("parts of them", False))
    ]  # fmt: skip


def clustered(rng: np.random.Generator, *, clusters: int, spread: float, whole: bool) -> str:
    """The verdict on 4% harmed and 2% repaired answers with a limit of 2 points."""
    sizes = np.maximum(1, np.round(np.exp(rng.normal(1.5, spread, clusters)))).astype(int)
    cluster = np.repeat(np.arange(clusters), sizes)
    flips = HARM + GAIN
    if whole:
        drawn = rng.random(clusters)[cluster]
        harmed, repaired = drawn < HARM, (drawn >= HARM) & (drawn < flips)
    else:
        flipped = rng.random(len(cluster)) < rng.beta(0.3, 0.3 * (1 / flips - 1), clusters)[cluster]
        worse = rng.random(len(cluster)) < HARM / flips
        harmed, repaired = flipped & worse, flipped & ~worse
    before, after = (~repaired).astype(np.uint8), (~harmed).astype(np.uint8)
    return _verdict(before, after, cluster, Limit((HARM - GAIN) * 100, "pt", "2pt"))


def _errors() -> list[Case]:
    points = ((0.5, 0.1, 0.1, 5000), (0.1, 0.1, 0.1, 1000), (0.3, 0.2, 0.2, 1000), (0.02, 0.01, 0.5, 2000))
    return [
        (f"{more:.0%} more errors, {errors:.0%} errors, {differ:.0%} of answers differ, {samples:,} samples",
         partial(more_errors, errors=errors, differ=differ, more=more, samples=samples))
        for errors, differ, more, samples in points
    ]  # fmt: skip


def more_errors(rng: np.random.Generator, *, errors: float, differ: float, more: float, samples: int) -> str:
    """The verdict where the limit is a share of errors that the same rows measure."""
    harmed = (differ + more * errors) / 2
    repaired = differ - harmed
    counts = rng.multinomial(samples, [harmed, repaired, errors - repaired, 1 - errors - harmed])
    before, after = (np.repeat(np.array(right, np.uint8), counts) for right in ([1, 0, 0, 1], [0, 1, 0, 1]))
    return _verdict(before, after, None, Limit(more * 100, "% errors", f"{more:.0%} errors"))


def _groups() -> list[Case]:
    return [
        (f"{groups} groups of {samples}, one of them at its limit", partial(grouped, groups=groups, samples=samples))
        for groups in (2, 10) for samples in (200, 1000)
    ]  # fmt: skip


def grouped(rng: np.random.Generator, *, groups: int, samples: int) -> str:
    """The gate's answer on groups of which one drops by the limit, 2 points, and the others change 2% without harm."""
    limit, judged = Limit(2.0, "pt", "2pt"), metric("top1", labels=True, output=None)
    group = np.repeat(np.arange(groups), samples)
    drawn = rng.random(len(group))
    harm, gain = np.where(group == 0, HARM, 0.01), np.where(group == 0, GAIN, 0.01)
    harmed, repaired = drawn < harm, (drawn >= harm) & (drawn < harm + gain)
    before, after = (~repaired).astype(np.uint8), (~harmed).astype(np.uint8)
    found = drops_by_group(judged, {"score": before}, {"score": after}, group, None, limit, seed=0)
    return checks.worst_group("", found, limit, judged).verdict


def _verdict(before: np.ndarray, after: np.ndarray, cluster: np.ndarray | None, limit: Limit) -> str:
    judged = metric("top1", labels=True, output=None)
    return compare(judged, {"score": before}, {"score": after}, cluster, limit, seed=0).verdict


def _launches() -> list[Case]:
    return [
        (f"{what}, {LAUNCHES} launches of {CALLS} calls, {between:.0%} between launches and {within:.0%} within",
         partial(play, between=between, within=within))
        for what, play in (("5% of calls over a bound", slow_calls), ("P99", highest_calls))
        for between in (0.03, 0.06, 0.10)
        for within in (0.01, 0.03, 0.10, 0.30)
    ]  # fmt: skip


def slow_calls(rng: np.random.Generator, *, between: float, within: float) -> str:
    """The gate's answer to a share of slow calls that is the one allowed."""
    bound = Bound(text="5%", share=0.05, ms=float(np.exp(np.hypot(between, within) * _Z95)))
    return checks.slow_share(_drawn(rng, between, within), bound, steady=True).verdict


def highest_calls(rng: np.random.Generator, *, between: float, within: float) -> str:
    """The gate's answer to a P99 that is the one allowed."""
    limit = float(np.exp(np.hypot(between, within) * _Z99))
    return checks.p99(_drawn(rng, between, within), limit, steady=True).verdict


def _drawn(rng: np.random.Generator, between: float, within: float) -> list[np.ndarray]:
    return [np.exp(rng.normal(rng.normal(0, between), within, CALLS)) for _ in range(LAUNCHES)]
