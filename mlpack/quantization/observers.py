"""Observers: what is kept of an activation while calibration batches go by, and the range it gives in the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlpack.quantization.clipping import Range, entropy, mean_squared_error, percentile
from mlpack.quantization.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

# What onnxruntime and NNCF take: the weight of a new batch in the running mean.
_NEW = 0.01


class Observer(Protocol):
    """Sees every value of one tensor once, a part at a time."""

    def add(self, values: np.ndarray, least: float, largest: float) -> None:
        """A vector of finite float32, not empty, and its ends."""
        ...

    def end_batch(self) -> None:
        """All values of a calibration batch have been seen."""
        ...

    def range(self) -> Range:
        """The lowest and the highest value that the integers are to hold; (0, 0) if none was seen."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that it knows at the end of a batch."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Know what another one knew."""
        ...


@dataclass
class MinMax:
    """The smallest and the largest value."""

    low: float = math.inf
    high: float = -math.inf

    def add(self, values: np.ndarray, least: float, largest: float) -> None:
        del values
        self.low, self.high = min(self.low, least), max(self.high, largest)

    def end_batch(self) -> None:
        pass

    def range(self) -> Range:
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)

    def state(self) -> dict[str, np.ndarray]:
        return {"ends": np.array([self.low, self.high])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.low, self.high = (float(end) for end in state["ends"])


@dataclass
class MovingAverage:
    """The running means of each batch's smallest and largest value: mean ← mean + 0.01 (batch − mean)."""

    low: float | None = None
    high: float | None = None
    batch: MinMax = field(default_factory=MinMax)

    def add(self, values: np.ndarray, least: float, largest: float) -> None:
        self.batch.add(values, least, largest)

    def end_batch(self) -> None:
        if self.batch.low > self.batch.high:
            return
        low, high = self.batch.range()
        self.low = low if self.low is None else self.low + _NEW * (low - self.low)
        self.high = high if self.high is None else self.high + _NEW * (high - self.high)
        self.batch = MinMax()

    def range(self) -> Range:
        return (0.0, 0.0) if self.low is None or self.high is None else (self.low, self.high)

    def state(self) -> dict[str, np.ndarray]:
        return {} if self.low is None or self.high is None else {"ends": np.array([self.low, self.high])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        if "ends" in state:
            self.low, self.high = (float(end) for end in state["ends"])


@dataclass
class Clipped:
    """A histogram, cut where `clip` says; never wider than what was seen."""

    clip: Callable[[Histogram, Range], Range]
    histogram: Histogram = field(default_factory=Histogram)
    seen: MinMax = field(default_factory=MinMax)

    def add(self, values: np.ndarray, least: float, largest: float) -> None:
        self.seen.add(values, least, largest)
        self.histogram.add(values, max(-least, largest))

    def end_batch(self) -> None:
        pass

    def range(self) -> Range:
        lowest, highest = self.seen.range()
        if lowest == highest:
            return lowest, highest
        low, high = self.clip(self.histogram, (lowest, highest))
        return max(low, lowest), min(high, highest)

    def state(self) -> dict[str, np.ndarray]:
        return {**self.seen.state(), **self.histogram.state()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.seen.restore(state)
        self.histogram.restore(state)


def observer(method: str, *, symmetric: bool, cut: float) -> Callable[[], Observer]:
    """A maker of observers for a method; `cut` is the percentile's, in percent.

    Args:
        method: minmax, moving_average, percentile, entropy or mse.
        symmetric: whether the integers will be symmetric about zero, so that both sides are cut alike.
        cut: the share of values to keep, 50 to 100, for `percentile`.
    """
    makers: dict[str, Callable[[], Observer]] = {
        "minmax": MinMax,
        "moving_average": MovingAverage,
        "percentile": lambda: Clipped(partial(percentile, keep=cut / 100, symmetric=symmetric)),
        "entropy": lambda: Clipped(entropy),
        "mse": lambda: Clipped(partial(mean_squared_error, symmetric=symmetric)),
    }
    return makers[method]
