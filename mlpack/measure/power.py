"""Power: how many samples prove a model that is as right as the original, and what so many can decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from mlpack.measure import proportions

if TYPE_CHECKING:
    from collections.abc import Callable

# Answers that a harmless model is taken to change where none has been measured.
DISCORDANCE = 0.02
_ENOUGH_CHANCE = 0.8
_MOST_SAMPLES = 10**12


@dataclass(frozen=True)
class Decidable:
    """Whether a number of samples can prove a model that is as right as the original."""

    samples: int
    chance: float
    samples_needed: int

    @property
    def enough(self) -> bool:
        """Whether a harmless model would be proven in at least 80% of cases."""
        return self.chance >= _ENOUGH_CHANCE


def samples_to_prove(b: int, c: int, n: int, limit: float) -> int | None:
    """How many samples would give `pass` if they differed as these do; None where none would.

    `b`, `c`, `n` as in `proportions.tango`; the limit is absolute.
    """
    if (b - c) / n >= limit:
        return None

    def proven(size: int) -> bool:
        return proportions.interval(b * size / n, c * size / n, size)[1] <= limit

    return smallest(proven)


def can_decide(samples: int, limit: float, discordance: float = DISCORDANCE) -> Decidable:
    """Whether this many samples would prove a harmless model.

    That is one that flips this share of answers, half of them each way. The chance is that of the measured
    drop plus its reach (Tango's, at no drop) staying inside the absolute limit, by the normal
    approximation. `samples_needed` gives a chance of 80%.
    """

    def chance(size: int) -> float:
        deviation = math.sqrt(discordance / size)
        reach = proportions.interval(discordance / 2 * size, discordance / 2 * size, size)[1]
        return NormalDist().cdf((limit - reach) / deviation)

    needed = smallest(lambda size: chance(size) >= _ENOUGH_CHANCE) if limit > 0 else None
    return Decidable(samples, chance(samples), needed or _MOST_SAMPLES)


def can_decide_by_width(samples: int, limit: float, reach: float) -> Decidable:
    """The same where an interval's upper end lies `reach` / sqrt(samples) over the drop: of means and whole sets."""

    def chance(size: int) -> float:
        upper = reach / math.sqrt(size)
        return NormalDist(0, upper / NormalDist().inv_cdf(0.95)).cdf(limit - upper)

    if reach <= 0:
        return Decidable(samples, 1.0, 1)
    needed = smallest(lambda size: chance(size) >= _ENOUGH_CHANCE) if limit > 0 else None
    return Decidable(samples, chance(samples), needed or _MOST_SAMPLES)


def samples_by_width(drop: float, high: float, samples: int, limit: float) -> int | None:
    """The same question for a bootstrap interval, whose reach shrinks with the square root of the samples."""
    if drop >= limit:
        return None
    return math.ceil(samples * ((high - drop) / (limit - drop)) ** 2)


def smallest(enough: Callable[[int], bool]) -> int | None:
    """The smallest number from which on `enough` holds, by doubling and halving; None where it never does."""
    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
