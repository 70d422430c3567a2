"""Where to cut a histogram: the range that is worth its steps, when the rarest values are not.

Every function takes the counts and the smallest and largest value seen, and gives the range for the integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlpack.quantization.histogram import Histogram

Range = tuple[float, float]

# The geometry of the published KL search, which TensorRT 7 and onnxruntime's collector follow too.
_BINS, _LEVELS, _SMOOTH = 2048, 128, 1e-4
_STEPS = 255
_SHRINKS = np.linspace(1.0, 0.1, 91)
_ROUNDS = 3


def percentile(histogram: Histogram, seen: Range, *, keep: float, symmetric: bool) -> Range:  # noqa: ARG001 - one signature
    """The lower edges of the bins where the share `keep` begins and ends; as much is cut on the left as on the right.

    With `symmetric` it is the share of absolute values, and the range is (−t, t).
    """
    counts, edges = histogram.counts, histogram.edges
    half = counts.size // 2
    if symmetric:
        sizes = counts[half:] + counts[:half][::-1]
        reached = np.searchsorted(np.cumsum(sizes), keep * sizes.sum())
        return -float(edges[half + reached]), float(edges[half + reached])
    total, below = counts.sum(), np.cumsum(counts)
    cut = (1.0 - keep) / 2.0 * total
    low, high = np.searchsorted(below, cut, side="right"), np.searchsorted(below, total - cut)
    return float(edges[low]), float(edges[high])


def entropy(histogram: Histogram, seen: Range) -> Range:
    """The threshold ±t whose 128 levels lose the least information, as Kullback–Leibler divergence.

    The values are taken in 2,048 bins over ± the largest of them, as onnxruntime's collector has them. For each t,
    the bins inside it, with all that lies outside added to its ends, are compared with what is left of them when
    neighbours share a level.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017, slides 20 and following; the smoothing of empty bins is
    that of Apache MXNet.
    """
    largest = max(-seen[0], seen[1])
    counts = _rebinned(histogram, largest)
    total, below = int(counts.sum()), np.concatenate([[0], np.cumsum(counts)])
    middle = _BINS // 2
    least, best = np.inf, middle
    for reach in range(_LEVELS // 2, middle + 1):
        first, last = middle - reach, min(middle + reach + 1, _BINS)
        divergence = _divergence(counts[first:last], int(below[first]), total - int(below[last]))
        if divergence < least:
            least, best = divergence, reach
    width = 2.0 * largest / _BINS
    return -best * width, (min(middle + best + 1, _BINS) - middle) * width


def _divergence(inside: np.ndarray, left: int, right: int) -> float:
    """D(inside with its outliers ‖ inside in 128 levels)."""
    clipped = inside.copy()
    clipped[0] += left
    clipped[-1] += right
    joined = inside.size // _LEVELS
    end = joined * _LEVELS
    levels = inside[:end].reshape(_LEVELS, joined).sum(axis=1)
    levels[-1] += inside[end:].sum()
    filled = (clipped[:end] != 0).reshape(_LEVELS, joined).sum(axis=1)
    spread = np.zeros_like(inside)
    each = np.divide(levels, filled, out=np.zeros(_LEVELS), where=filled > 0)
    spread[:end] = np.repeat(each.astype(np.int64), joined)
    one, two = _smooth(clipped), _smooth(spread)
    if one is None or two is None:
        return np.inf
    return float(np.sum(one * np.log(one / two)))


def _smooth(counts: np.ndarray) -> np.ndarray | None:
    """A distribution without empty bins, float32; None where nearly all are empty."""
    empty = counts == 0
    filled = counts.size - int(empty.sum())
    if not filled or (taken := _SMOOTH * (counts.size - filled) / filled) >= 1:
        return None
    smooth = np.where(empty, _SMOOTH, counts - taken).astype(np.float32)
    return np.asarray(smooth / smooth.sum())


def mean_squared_error(histogram: Histogram, seen: Range, *, symmetric: bool) -> Range:
    """The range whose 256 levels have the least mean squared error: rounding inside it, and what is cut off.

    Each end is searched in turn on a grid of 91 shares of what was seen, until neither moves (Nagel et al.: A White
    Paper on Neural Network Quantization, 2021, section 3.1).
    """
    filled = histogram.counts.nonzero()[0]
    weights = histogram.counts[filled].astype(np.float64)
    values = (filled - histogram.counts.size // 2 + 0.5) * histogram.width
    lowest, highest = min(0.0, seen[0]), max(0.0, seen[1])
    if symmetric:
        largest = max(-lowest, highest)
        best = min(_SHRINKS, key=lambda share: _error(values, weights, -share * largest, share * largest))
        return -float(best) * largest, float(best) * largest
    low, high = lowest, highest
    for _ in range(_ROUNDS):
        before = low, high
        high = min((float(s) * highest for s in _SHRINKS), key=lambda end: _error(values, weights, low, end))
        low = min((float(s) * lowest for s in _SHRINKS), key=lambda end: _error(values, weights, end, high))
        if before == (low, high):
            break
    return low, high


def _error(values: np.ndarray, weights: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / _STEPS
    if step <= 0:
        return float(np.dot(weights, np.square(values)))
    rounded = np.clip(np.round((values - low) / step), 0, _STEPS) * step + low
    return float(np.dot(weights, np.square(values - rounded)))


def _rebinned(histogram: Histogram, largest: float) -> np.ndarray:
    """Counts in 2,048 bins over ±largest; a bin that an edge cuts is shared out by length."""
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    at_edges = np.round(np.interp(np.linspace(-largest, largest, _BINS + 1), histogram.edges, below))
    at_edges[[0, -1]] = below[[0, -1]]
    return np.asarray(np.diff(at_edges), np.int64)
