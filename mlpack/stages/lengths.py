"""Samples of the lengths that the data has, and what one of each costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlpack.core.backend import Runner
    from mlpack.core.model import Model
    from mlpack.core.stage import Job

_ROWS = 512
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


def free_dim(model: Model) -> tuple[str, int] | None:
    """The input and axis whose size a request may choose, the batch aside; None where there is none."""
    for spec in model.inputs:
        for axis, dim in enumerate(spec.dims[1:], start=1):
            if isinstance(dim, str):
                return spec.name, axis
    return None


def samples_by_length(model: Model, job: Job) -> dict[int, dict[str, np.ndarray]]:
    """One sample each of the shortest, the longest and some usual lengths; nothing where all are of one length.

    Taken from the first 512 of the rows that timings look at.
    """
    free, dataset = free_dim(model), job.dataset("calibration")
    if free is None or dataset is None or not model.dynamic_batch:
        return {}
    name, axis = free
    found: dict[int, dict[str, np.ndarray]] = {}
    lengths = []
    for at, batch in enumerate(dataset.batches(1)):
        if at == _ROWS:
            break
        length = int(batch.inputs[name].shape[axis])
        lengths.append(length)
        found.setdefault(length, batch.inputs)
    if len(found) < 2:  # noqa: PLR2004 - one length is the usual one, which is timed already
        return {}
    wanted = {int(each) for each in np.quantile(lengths, _QUANTILES, method="nearest")}
    return {length: found[length] for length in sorted(wanted)}


def save(path: Path, samples: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    """Write the samples for the processes that time them."""
    arrays: dict[str, Any] = {
        f"{length}/{name}": array for length, feeds in samples.items() for name, array in feeds.items()
    }
    np.savez(path, **arrays)


def time_lengths(runner: Runner, path: str, seconds: float) -> dict[int, float]:
    """Median ms of a call on each sample, by its length."""
    from functools import partial

    from mlpack.measure.clock import time_calls

    samples: dict[int, dict[str, np.ndarray]] = {}
    for key, array in np.load(path).items():
        length, _, name = key.partition("/")
        samples.setdefault(int(length), {})[name] = array
    return {length: float(np.median(time_calls(partial(runner, feeds), seconds))) for length, feeds in samples.items()}


def rows(by_contender: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row per length: ms of each contender."""
    lengths = sorted({int(length) for told in by_contender.values() for length in told})
    return [
        {"length": length, **{label: told.get(str(length)) for label, told in by_contender.items()}}
        for length in lengths
    ]
