"""Rows to run a model on while it is being made: real ones where the user gave data, else synthetic ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Model, TensorSpec
    from mlpack.core.stage import Job

FREE_DIM = 8


def rows(model: Model, job: Job, part: Part, count: int) -> tuple[dict[str, np.ndarray], Literal["real", "synthetic"]]:
    """Inputs of `count` samples at most (fewer where the data or a static batch has fewer), and their kind."""
    count = count if model.dynamic_batch else static_batch(model)
    dataset = job.dataset(part)
    if dataset is not None:
        batch = next(iter(dataset.batches(count)))
        if len(batch) == count or model.dynamic_batch:
            return batch.inputs, "real"
    return {spec.name: synthetic(spec, count, job.seed) for spec in model.inputs}, "synthetic"


def static_batch(model: Model) -> int:
    """The one batch size that a model with a static batch takes."""
    first = model.inputs[0].dims[0] if model.inputs and model.inputs[0].dims else 1
    return first if isinstance(first, int) else 1


def synthetic(spec: TensorSpec, count: int, seed: int) -> np.ndarray:
    """Seeded values of a spec: normal floats, integers 0 and 1 (always inside a lookup table), booleans."""
    random = np.random.default_rng(seed)
    shape = [count, *(dim if isinstance(dim, int) else FREE_DIM for dim in spec.dims[1:])]
    if not spec.dims:
        shape = []
    kind = np.dtype(spec.dtype).kind
    if kind == "f":
        return random.standard_normal(shape).astype(spec.dtype)
    return random.integers(0, 2, shape).astype(spec.dtype)


def difference(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and relative L2 difference; infinite where shapes or non-finite cells differ."""
    if reference.shape != other.shape:
        return float("inf"), float("inf")
    one, two = reference.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one)
    same = np.array_equal(finite, np.isfinite(two)) and np.array_equal(one[~finite], two[~finite], equal_nan=True)
    if not same:
        return float("inf"), float("inf")
    one, two = one[finite], two[finite]
    if one.size == 0:
        return 0.0, 0.0
    norm = float(np.linalg.norm(one))
    distance = float(np.linalg.norm(one - two))
    return float(np.abs(one - two).max()), distance / norm if norm else (float("inf") if distance else 0.0)
