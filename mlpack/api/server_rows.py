"""The rows that a server is asked about: those of a file, or synthetic ones that fit the model's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from mlpack.errors import DataError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from mlpack.core.model import TensorSpec
    from mlpack.measure.clients.client import Served

_MOST_REQUESTS = 16
_MOST_BYTES = 32_000_000


@dataclass(frozen=True)
class Rows:
    """The inputs of a few different requests, sent in turns; `batch` rows each."""

    batch: int
    requests: tuple[dict[str, np.ndarray], ...]
    source: str
    notes: tuple[str, ...] = ()


def rows_for(served: Served, batch: int | None, data: str | Path | None, seed: int) -> Rows:
    """Inputs for a model as its server describes it.

    Raises:
        UsageError: a batch that the model does not take, or nothing says what the model takes.
        DataError: data that does not fit.
    """
    size = _batch(served, batch)
    if data is not None:
        return _of_data(served, size, str(data))
    if not served.inputs:
        raise UsageError(
            f"the server does not say what {served.name!r} takes", "--data rows.npz, with one array per input"
        )
    return _synthetic(served.inputs, size, seed)


def _batch(served: Served, batch: int | None) -> int:
    """The rows of one request: what was asked for, else 1; a fixed first dim decides."""
    if batch is not None and batch < 1:
        raise UsageError(f"a request has at least one row, not {batch}", "--batch 1")
    fixed = {dim for spec in served.inputs for dim in spec.dims[:1] if isinstance(dim, int)}
    if len(fixed) != 1:
        return batch or 1
    (size,) = fixed
    if batch is not None and batch != size:
        raise UsageError(f"{served.name!r} takes a fixed batch of {size}", f"--batch {size}")
    return size


def _of_data(served: Served, batch: int, data: str) -> Rows:
    from mlpack.datasets import open_data
    from mlpack.measure.clients.client import NAMES

    dataset = open_data(data, served.inputs or None)
    foreign = next((spec for spec in dataset.inputs if spec.dtype not in NAMES), None)
    if foreign:
        raise DataError(f"no server takes {foreign.dtype} (array {foreign.name!r})", "save it as float32")
    if len(dataset) < batch:
        raise DataError(f"{data} has {len(dataset)} rows, fewer than one request of {batch}", f"--batch {len(dataset)}")
    full = (each.inputs for each in dataset.batches(batch) if len(each.rows) == batch)
    first = next(full)
    requests = (first, *islice(full, _different(first) - 1))
    return Rows(batch, tuple(dict(each) for each in requests), data)


def _synthetic(inputs: tuple[TensorSpec, ...], batch: int, seed: int) -> Rows:
    from mlpack.datasets.random_rows import random_arrays

    first = random_arrays(inputs, batch, seed, {})
    others = (random_arrays(inputs, batch, seed + turn, {}) for turn in range(1, _different(first)))
    free = [spec.name for spec in inputs if any(isinstance(dim, str) for dim in spec.dims[1:])]
    notes: tuple[str, ...] = ()
    if free:
        shapes = ", ".join(f"{name} {list(first[name].shape)}" for name in free)
        notes = (f"free dims were made up ({shapes}): --data sends rows of the lengths that you serve",)
    return Rows(batch, (first, *others), "synthetic", notes)


def _different(request: dict[str, np.ndarray]) -> int:
    """How many different requests to keep ready: enough to defeat a cache of one, few enough for the memory."""
    size = sum(array.nbytes for array in request.values())
    return max(1, min(_MOST_REQUESTS, _MOST_BYTES // max(1, size)))
