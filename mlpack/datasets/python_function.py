"""`path/file.py:function`: the user's code gives batches; it is called anew for each pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.core.dataset import Batch
from mlpack.core.model import TensorSpec
from mlpack.core.user_code import find_reference, load_function, running, source_sha256
from mlpack.datasets.rows import check_finite
from mlpack.errors import DataError

if TYPE_CHECKING:
    from mlpack.core.user_code import Reference

_SHAPE = "yield ({'x': x}, labels): arrays by input name with the samples as first axis, labels or None"


class PythonFunction:
    """Batches from the user's function, rebatched. A pass that differs from the first is an error."""

    def __init__(self, text: str, fingerprint: str | None = None) -> None:
        """Opening runs one whole pass: its hash is the fingerprint, and it finds the shapes.

        Raises:
            DataError: the function raises, gives no batches, or batches that do not make a dataset.
        """
        self._reference: Reference = find_reference(text, "--data", DataError)
        self._what = f"data function {text!r}"
        self._function = load_function(self._reference, "data function", DataError)
        self.inputs: tuple[TensorSpec, ...] = ()
        self.labelled = False
        self._size = 0
        self._pass_digest: str | None = None
        for _ in self._given():
            pass
        self.fingerprint = hashlib.sha256(f"{source_sha256(self._reference)} {self._pass_digest}".encode()).hexdigest()
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise self._differs()

    def __len__(self) -> int:
        return self._size

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        return self.batches_of(np.arange(self._size), size)

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows, in batches of `size`; runs the whole function."""
        kept: list[Batch] = []
        waiting = 0
        for batch in self._given():
            chosen = np.isin(batch.rows, rows, assume_unique=True)
            if not chosen.any():
                continue
            kept.append(batch[chosen])
            waiting += len(kept[-1])
            while waiting >= size:
                whole = _join(kept)
                yield whole[:size]
                kept = [whole[size:]]
                waiting -= size
        if waiting:
            yield _join(kept)

    def _given(self) -> Iterator[Batch]:
        """One pass over what the function gives, checked and hashed."""
        digest = hashlib.sha256()
        start = 0
        with running(self._reference, self._what, DataError):
            given = iter(self._function())
        while True:
            with running(self._reference, self._what, DataError):
                item = next(given, None)
            if item is None:
                break
            batch = self._checked(item, start)
            start += len(batch)
            for name, array in sorted(batch.inputs.items()):
                digest.update(f"{name} {array.dtype} {array.shape[1:]}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            if batch.labels is not None:
                digest.update(np.ascontiguousarray(batch.labels).tobytes())
            yield batch
        if start == 0:
            raise DataError(f"{self._what} gave no batches", _SHAPE)
        if self._pass_digest is None:
            self._pass_digest, self._size = digest.hexdigest(), start
        elif self._pass_digest != digest.hexdigest():
            raise self._differs()

    def _differs(self) -> DataError:
        return DataError(
            f"{self._what} gives other rows each time it is called",
            "fix its seed and do not shuffle: every pass has to give the same rows in the same order",
        )

    def _checked(self, item: Any, start: int) -> Batch:
        if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Mapping):  # noqa: PLR2004 - inputs, labels
            raise DataError(f"{self._what} gave a {type(item).__name__}, not (inputs, labels)", _SHAPE)
        inputs = {str(name): np.asarray(array) for name, array in item[0].items()}
        labels = None if item[1] is None else np.asarray(item[1])
        self._check_arrays(inputs if labels is None else {**inputs, "labels": labels}, start)
        specs = tuple(
            TensorSpec(name=name, dtype=array.dtype.name, dims=("batch", *array.shape[1:]))
            for name, array in inputs.items()
        )
        if not self.inputs:
            self.inputs, self.labelled = specs, labels is not None
        if {spec.name: spec for spec in specs} != {spec.name: spec for spec in self.inputs}:
            raise DataError(
                f"{self._what} gave {', '.join(map(str, specs))} after {', '.join(map(str, self.inputs))}",
                "every batch has the same names, dtypes and dims but for the samples: pad to one length",
            )
        if self.labelled != (labels is not None):
            raise DataError(f"{self._what} gave labels with some batches only", "give labels with all batches or none")
        size = len(next(iter(inputs.values())))
        return Batch(inputs=inputs, labels=labels, rows=np.arange(start, start + size))

    def _check_arrays(self, arrays: Mapping[str, np.ndarray], start: int) -> None:
        if not set(arrays) - {"labels"}:
            raise DataError(f"{self._what} gave no input arrays", _SHAPE)
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise DataError(f"{self._what}: {name!r} has dtype {array.dtype}: models take numbers", _SHAPE)
            if array.ndim == 0:
                raise DataError(f"{self._what}: {name!r} is a single number", _SHAPE)
            check_finite(name, array, start, self._what)
        (first, size), *others = ((name, len(array)) for name, array in arrays.items())
        for other, length in others:
            if length != size:
                raise DataError(f"{self._what}: {first!r} has {size} samples but {other!r} has {length}", _SHAPE)


def _join(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        inputs={name: np.concatenate([batch.inputs[name] for batch in batches]) for name in batches[0].inputs},
        labels=np.concatenate(labels) if labels else None,
        rows=np.concatenate([batch.rows for batch in batches]),
    )
