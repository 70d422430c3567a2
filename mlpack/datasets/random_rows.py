"""`random:64`: rows drawn from a seed, to try the mechanics without data. Its results prove nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.dataset import Batch
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.model import TensorSpec

_SYMBOL_SIZE = 16
"""What a dim that is a symbol other than the batch is drawn with."""


class RandomRows:
    """`size` rows for these inputs. Each row comes from (seed, row) alone, so that none need be kept."""

    labelled = False

    def __init__(self, size: int, inputs: tuple[TensorSpec, ...], seed: int) -> None:
        fixed = {dim: _SYMBOL_SIZE for spec in inputs for dim in spec.dims[1:] if isinstance(dim, str)}
        self._size = size
        self._seed = seed
        self.inputs = tuple(
            spec.model_copy(update={"dims": ("batch", *(fixed.get(str(dim), dim) for dim in spec.dims[1:]))})
            for spec in inputs
        )
        described = " ".join(map(str, self.inputs))
        self.fingerprint = hashlib.sha256(f"random {size} {seed} {described}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._size

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        return self.batches_of(np.arange(self._size), size)

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows, in batches of `size`."""
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            drawn = [_row(self.inputs, self._seed, int(row), {}) for row in chosen]
            inputs = {spec.name: np.stack([row[spec.name] for row in drawn]) for spec in self.inputs}
            yield Batch(inputs=inputs, labels=None, rows=chosen)


def random_arrays(
    inputs: tuple[TensorSpec, ...], rows: int, seed: int, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """`rows` rows for these inputs, with `sizes` for the dims that are symbols."""
    drawn = [_row(inputs, seed, row, sizes) for row in range(rows)]
    return {spec.name: np.stack([row[spec.name] for row in drawn]) for spec in inputs}


def _row(inputs: tuple[TensorSpec, ...], seed: int, row: int, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Floats from a normal distribution; integers and bools 0 or 1, so that no lookup is out of range.

    The first place of each row is 1 (or True), as a mask that is 0 everywhere has no meaning.
    """
    generator = np.random.default_rng([seed, row])
    made = {}
    for spec in inputs:
        shape = tuple(dim if isinstance(dim, int) else sizes.get(dim, _SYMBOL_SIZE) for dim in spec.dims[1:])
        dtype = spec.numpy_dtype
        if dtype.kind in "iub":
            values = generator.integers(0, 2, shape)
            if shape and values.size:
                values.flat[0] = 1
            made[spec.name] = np.asarray(values, dtype=dtype)
        else:
            made[spec.name] = np.asarray(generator.standard_normal(shape), dtype=dtype)
    return made


def open_random(path: str, inputs: tuple[TensorSpec, ...] | None, seed: int) -> RandomRows:
    """The dataset that `random:N` names.

    Raises:
        DataError: N is no number from 1 on, or the inputs are not known.
    """
    count = path.partition(":")[2]
    if not count.isdigit() or int(count) < 1:
        raise DataError(f"{path!r} does not say how many rows", "random:64")
    if inputs is None:
        raise DataError(f"{path!r} needs to know the model's inputs", "--input name=float32:batch,3,224,224")
    return RandomRows(int(count), inputs, seed)
