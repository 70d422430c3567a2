"""A histogram that grows: counts in bins whose width is a power of two, in memory that does not depend on the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# Bins on each side of zero. The widest value fills more than half of them: a bin is never wider than 1/8192 of it.
HALF = 16384
_LOG_HALF = HALF.bit_length() - 1
# Below it 2**-exponent is no float32 any more; all smaller values share the bins beside zero.
_FINEST = -120
# Bins of a chunk and its indices stay in the second level of the processor's cache.
_CHUNK = 1 << 16


@dataclass
class Histogram:
    """Counts of float32 values: bin i holds [(i − HALF) w, (i + 1 − HALF) w) with w = 2**exponent.

    When a value lies outside, bins are joined in pairs and w doubles. Edges are multiples of w at every step, so the
    counts do not depend on the order in which values came, nor on how they were cut into batches: histograms of
    parts can be added up.
    """

    exponent: int = _FINEST
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))

    @property
    def width(self) -> float:
        """The width of a bin, in the unit of the values."""
        return math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> np.ndarray:
        """The 2 × HALF + 1 edges of the bins, float64."""
        return np.arange(-HALF, HALF + 1) * self.width

    def add(self, values: np.ndarray, largest: float) -> None:
        """Count these values, a vector of finite float32, of which none is larger than `largest` in size."""
        self._reach(largest)
        # Scaling a float32 down by a power of two can lose its sign to underflow; scaling it up is exact.
        scale = (np.float32 if self.exponent <= 0 else np.float64)(math.ldexp(1.0, -self.exponent))
        # Floats become int32 in vector instructions, int64 one by one; counting takes int64. All three are written over
        # by every chunk: the pages of a new array cost as much as its numbers.
        size = min(values.size, _CHUNK)
        floats, bins, indices = np.empty(size, type(scale)), np.empty(size, np.int32), np.empty(size, np.int64)
        for start in range(0, values.size, _CHUNK):
            part = values[start : start + _CHUNK]
            floored, bin_of, index = floats[: part.size], bins[: part.size], indices[: part.size]
            np.multiply(part, scale, out=floored)
            np.floor(floored, out=floored)
            np.copyto(bin_of, floored, casting="unsafe")
            first = int(bin_of.min())
            np.subtract(bin_of, first, out=index)
            counts = np.bincount(index)
            self.counts[HALF + first : HALF + first + counts.size] += counts

    def state(self) -> dict[str, np.ndarray]:
        """The width and the counts from the first bin that has any to the last."""
        there = np.flatnonzero(self.counts)
        first, end = (int(there[0]), int(there[-1]) + 1) if there.size else (0, 0)
        return {"exponent": np.array(self.exponent), "first": np.array(first), "counts": self.counts[first:end]}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Hold what another one held."""
        first, counts = int(state["first"]), state["counts"]
        self.exponent, self.counts = int(state["exponent"]), np.zeros_like(self.counts)
        self.counts[first : first + counts.size] = counts

    def merge(self, other: Histogram) -> None:
        """Add the counts of another part of the data."""
        wide, fine = (self, other) if self.exponent >= other.exponent else (other, self)
        folded = Histogram(fine.exponent, fine.counts.copy())
        folded._widen(wide.exponent)
        self.exponent, self.counts = wide.exponent, wide.counts + folded.counts

    def _reach(self, largest: float) -> None:
        """Widen the bins until they hold a value of this size."""
        if largest > 0:
            self._widen(max(math.frexp(largest)[1] - _LOG_HALF, _FINEST))

    def _widen(self, exponent: int) -> None:
        if not self.counts.any():
            self.exponent = max(self.exponent, exponent)
        while self.exponent < exponent:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros_like(self.counts)
            self.counts[HALF // 2 : HALF // 2 + HALF] = joined
            self.exponent += 1
