"""Mini-batches of the training rows in a seeded order, and the rows that are held out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.dataset import Batch

MOST_HELD_OUT = 1000
"""More rows than these tell no better when to stop."""
_FEWEST = 2


class Rows(Protocol):
    """Rows of which any can be had by position, 0 to len - 1."""

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows (int64, ascending positions), in batches of `size`."""
        ...


class Sampler:
    """Which rows a step learns from. It follows from seed and step alone: nothing of it has to be kept."""

    def __init__(self, rows: Rows, batch: int, held_out: float, seed: int, *, fixed: bool = False) -> None:
        """`fixed`: the module takes batches of exactly this size.

        Raises:
            DataError: there are too few rows.
        """
        self._rows, self._seed, self._fixed = rows, seed, fixed
        order = np.random.default_rng([seed, 0]).permutation(len(rows))
        held = max(1, min(MOST_HELD_OUT, round(held_out * len(rows))))
        if fixed:
            held = max(batch, held - held % batch)
        self._held_out, self._learnt = np.sort(order[:held]), np.sort(order[held:])
        self.batch = batch if fixed else min(batch, len(self._learnt))
        if len(self._learnt) < max(_FEWEST, self.batch):
            needed = 2 * batch if fixed else _FEWEST + 1
            raise DataError(
                f"{len(rows)} training rows are too few to learn from", f"give at least {needed}: --train FILE.npz"
            )
        self.steps_per_epoch = len(self._learnt) // self.batch
        self._epoch, self._order = -1, self._learnt

    @property
    def learnt(self) -> int:
        """How many rows are learnt from."""
        return len(self._learnt)

    @property
    def held_out(self) -> int:
        """How many rows are held out."""
        return len(self._held_out)

    def of(self, step: int) -> Batch:
        """The rows of a step, 0 the first. What is left of an epoch's last batch is passed over: it may be one row."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, 1, epoch]).permutation(self._learnt)
        chosen = np.sort(self._order[at * self.batch : (at + 1) * self.batch])
        return next(iter(self._rows.batches_of(chosen, len(chosen))))

    def unseen(self) -> Iterator[Batch]:
        """The rows that are held out."""
        return self._rows.batches_of(self._held_out, self.batch)
