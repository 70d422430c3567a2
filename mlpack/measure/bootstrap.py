"""The interval of a drop by resampling samples, or clusters of them, the same ones on both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlpack.errors import DataError
from mlpack.measure.proportions import upper_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlpack.measure.metrics import Metric

# With fewer differing samples the resamples see too little of what can happen: see `_floor`.
DISCORDANT_FLOOR = 10
# Of a metric of the whole set each side's tail is narrowed as that of proportions is: what it counts is flips too.
_SET_TAILS = 0.85
# Of the squared coefficient of variation of the clusters' sizes; 1.7 for log-normal ones with sd 1.
_PER_UNEVENNESS = 0.2
_MOST_UNEVEN = 3.0
_JACKKNIFE_GROUPS = 200
_UNDEFINED_SHARE = 0.05
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Drop:
    """original - candidate, positive = worse, with its two-sided interval and how many samples differ."""

    value: float
    low: float
    high: float
    discordant: int


def paired_drop(
    metric: Metric,
    original: Mapping[str, np.ndarray],
    candidate: Mapping[str, np.ndarray],
    cluster: np.ndarray | None,
    seed: int,
    confidence: float = 0.90,
    resamples: int = 2000,
) -> Drop:
    """The drop between two models' kept rows of the same samples, with a BCa bootstrap interval.

    The tails are taken at the normal quantile expanded to Student's t, for small sets (Hesterberg). The
    percentile interval stands in where bias or acceleration is undefined. Means of scores also get the
    bootstrap-t interval and the wider ends count: scores such as squared errors are skewed, and on 50 samples
    of a heavy-tailed harm BCa alone passes a model at its limit in 12% of cases, both together in 8%.
    Degenerate cases are widened.

    Source: B. Efron, Better bootstrap confidence intervals, JASA 82 (1987) 171-185; T. Hesterberg, What
    teachers should know about the bootstrap, The American Statistician 69 (2015) 371-386.

    Raises:
        DataError: the metric is undefined on more than 5% of the resamples.
    """
    n = len(next(iter(original.values())))
    group = np.arange(n) if cluster is None else np.unique(cluster, return_inverse=True)[1].reshape(-1)
    groups = int(group.max()) + 1
    differing = _differing(original, candidate)
    discordant = len(np.unique(group[differing]))
    sign = 1.0 if metric.higher_is_better else -1.0
    ours, theirs = metric.scores(original), metric.scores(candidate)
    rng = np.random.default_rng(seed)

    if ours is not None and theirs is not None:
        value = sign * float(np.mean(ours) - np.mean(theirs))
        sums = np.bincount(group, weights=sign * (ours - theirs), minlength=groups)
        counts = np.bincount(group, minlength=groups).astype(np.float64)
        draws, studentized = _resampled_means(sums, counts, resamples, rng)
        left_out = _means_without(sums, counts)
        spread = max(float(np.ptp(np.concatenate([ours, theirs]))), float(np.abs([ours, theirs]).max()))
    else:
        both = (metric.reduce(original), metric.reduce(candidate))
        value = sign * (both[0] - both[1])
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])

        def drop_of(picked: np.ndarray) -> float:
            rows = picked if cluster is None else np.concatenate([members[each] for each in picked])
            return sign * (_value(metric, original, rows) - _value(metric, candidate, rows))

        draws = _defined(np.array([drop_of(rng.integers(0, groups, groups)) for _ in range(resamples)]))
        left_out, studentized = _jackknife(drop_of, groups), np.empty(0)
        spread = max(abs(each) for each in both)
    by_mean = len(studentized) > 0
    low, high = _bca(draws, value, left_out, groups, confidence if by_mean else 1 - _SET_TAILS * (1 - confidence))
    if by_mean:
        tail = (1 - confidence) / 2
        ends = value - _standard_error(sums, counts) * np.quantile(studentized, [1 - tail, tail])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        share = _shares(sums, counts)
        low, high = low - _unseen(-share), high + _unseen(share)
    if cluster is not None:
        wider = _unevenness(np.bincount(group))
        low, high = value - wider * (value - low), value + wider * (high - value)
    return _floor(Drop(value, low, high, discordant), groups, 1.0 if metric.percent else spread, confidence)


def _unevenness(sizes: np.ndarray) -> float:
    """By what factor the reach over clusters of these sizes is lengthened; 1 for equal ones.

    What the largest do decides, and is seldom seen. Found by simulation (docs/decisions/0007).
    """
    return 1 + _PER_UNEVENNESS * min(_MOST_UNEVEN, float(np.var(sizes) / np.mean(sizes) ** 2))


def _floor(drop: Drop, groups: int, spread: float, confidence: float) -> Drop:
    """Widen an interval that rests on too few differing samples, or on none.

    If m of n samples (or clusters) differ, the share that differs is at most p, the exact upper bound of
    Clopper and Pearson (m = 0: 1 - 0.05^(1/n), the rule of three, Hanley and Lippman-Hand, JAMA 249 (1983)
    1743), and if all of it were harm, each by the whole spread of what a sample can score, the drop were p
    * spread. With fewer than 10 differing samples both ends reach at least that far. An interval of no
    width in spite of more is widened by the bound for m = 0: samples that behave in a way that none of
    these did.
    """
    if drop.discordant < DISCORDANT_FLOOR:
        reach = upper_rate(drop.discordant, groups, confidence) * spread
        return Drop(drop.value, min(drop.low, -reach), max(drop.high, reach), drop.discordant)
    if drop.high - drop.low <= 1e-12 * max(1.0, abs(drop.value)):
        reach = upper_rate(0, groups, confidence) * spread
        return Drop(drop.value, drop.value - reach, drop.value + reach, drop.discordant)
    return drop


def _differing(original: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which samples' kept rows are not the same on both sides."""
    n = len(next(iter(original.values())))
    differs = np.zeros(n, dtype=bool)
    for name, array in original.items():
        differs |= (array != candidate[name]).reshape(n, -1).any(axis=1)
    return differs


def _resampled_means(
    sums: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Means of resampled groups, and how many of their own standard errors they are from the mean of all."""
    groups, chunk = len(sums), max(1, _CHUNK_NUMBERS // len(sums))
    middle = sums.sum() / counts.sum()
    means, distances = [], []
    for start in range(0, resamples, chunk):
        picked = rng.integers(0, groups, (min(chunk, resamples - start), groups), dtype=np.int32)
        drawn, sizes = sums[picked], counts[picked]
        mean = drawn.sum(axis=1) / sizes.sum(axis=1)
        error = _standard_error(drawn, sizes)
        means.append(mean)
        distances.append((mean - middle)[error > 0] / error[error > 0])
    return np.concatenate(means), np.concatenate(distances)


def _shares(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What each group adds to the mean over all samples, beyond what an average one adds."""
    total = counts.sum(axis=-1)
    return np.asarray((sums - (sums.sum(axis=-1) / total)[..., None] * counts) / total[..., None])


def _unseen(shares: np.ndarray) -> float:
    """What is added to the upper end for a tail that was not seen whole: no resample goes beyond the samples.

    A quarter of a sample like the largest is taken to be missing, and more of it the more the samples are
    skewed that way, as far as 12 / sqrt(groups). Found by simulation (docs/decisions/0007).
    """
    square = float((shares**2).mean())
    skewness = float((shares**3).mean()) / square**1.5 if square > 0 else 0.0
    return (0.25 + min(max(0.0, skewness - 0.5), 12 / math.sqrt(len(shares)))) * float(shares.max())


def _standard_error(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the mean over all samples of groups with these sums and counts [..., groups], linearised."""
    return np.asarray(np.sqrt((_shares(sums, counts) ** 2).sum(axis=-1)))


def _means_without(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    rest = counts.sum() - counts
    return np.asarray((sums.sum() - sums)[rest > 0] / rest[rest > 0])


def _jackknife(drop_of: Callable[[np.ndarray], float], groups: int) -> np.ndarray:
    """The drop without each of at most 200 blocks: the skewness of the influences needs no more of them."""
    everyone = np.arange(groups)
    blocks = everyone % min(groups, _JACKKNIFE_GROUPS)
    if groups == 1:
        return np.empty(0)
    values = np.array([drop_of(everyone[blocks != block]) for block in range(blocks.max() + 1)])
    defined: np.ndarray = values[np.isfinite(values)]
    return defined


def _value(metric: Metric, kept: Mapping[str, np.ndarray], rows: np.ndarray) -> float:
    """The metric over these rows; NaN where it is undefined, also where a user's function then raises."""
    try:
        return metric.reduce({name: array[rows] for name, array in kept.items()})
    except DataError:
        return math.nan


def _defined(draws: np.ndarray) -> np.ndarray:
    defined: np.ndarray = draws[np.isfinite(draws)]
    if len(defined) < (1 - _UNDEFINED_SHARE) * len(draws):
        share = 1 - len(defined) / len(draws)
        raise DataError(
            f"the metric is undefined on {share:.0%} of the resamples: too few samples for an interval",
            "give more evaluation data",
        )
    return defined


def _bca(draws: np.ndarray, value: float, left_out: np.ndarray, groups: int, confidence: float) -> tuple[float, float]:
    from scipy.special import ndtr, ndtri, stdtrit

    if groups == 1:
        return value, value
    tail = (1 - confidence) / 2
    z = math.sqrt(groups / (groups - 1)) * float(stdtrit(groups - 1, 1 - tail))
    below = float(np.mean(draws < value) + 0.5 * np.mean(draws == value))
    gaps = left_out.mean() - left_out
    scale = float((gaps**2).sum()) ** 1.5
    levels = [float(ndtr(-z)), float(ndtr(z))]
    if 0 < below < 1 and scale > 0:
        bias, acceleration = float(ndtri(below)), float((gaps**3).sum()) / (6 * scale)
        shifted = [bias + end for end in (-z, z)]
        if all(acceleration * each < 1 for each in shifted):
            levels = [float(ndtr(bias + each / (1 - acceleration * each))) for each in shifted]
    low, high = np.quantile(draws, levels)
    return min(float(low), value), max(float(high), value)
