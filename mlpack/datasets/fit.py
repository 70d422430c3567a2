"""Does the data fit the model? Renames a single array, casts what can be cast safely, refuses the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlpack.core.dataset import Batch
    from mlpack.core.model import Dim, TensorSpec
    from mlpack.datasets.rows import RowDataset


@dataclass(frozen=True)
class _Fit:
    array: str
    wanted: TensorSpec
    cast: bool


class Fitted:
    """A dataset under the model's input names and dtypes. `casts` says what is converted per batch."""

    def __init__(self, dataset: RowDataset, fits: tuple[_Fit, ...]) -> None:
        self._dataset = dataset
        self._fits = fits
        given = {spec.name: spec for spec in dataset.inputs}
        self.fingerprint = dataset.fingerprint
        self.labelled = dataset.labelled
        self.inputs = tuple(
            given[fit.array].model_copy(update={"name": fit.wanted.name, "dtype": fit.wanted.dtype}) for fit in fits
        )
        self.casts = tuple(f"{fit.array}: {given[fit.array].dtype} → {fit.wanted.dtype}" for fit in fits if fit.cast)

    def __len__(self) -> int:
        return len(self._dataset)

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; the last one may be shorter."""
        return map(self._fitted, self._dataset.batches(size))

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows, in batches of `size`."""
        return map(self._fitted, self._dataset.batches_of(rows, size))

    def _fitted(self, batch: Batch) -> Batch:
        inputs = {}
        for fit in self._fits:
            array = batch.inputs[fit.array]
            inputs[fit.wanted.name] = _cast(array, fit, batch.rows) if fit.cast else array
        return replace(batch, inputs=inputs)


def _cast(array: np.ndarray, fit: _Fit, rows: np.ndarray) -> np.ndarray:
    """Convert; a number that the new dtype cannot hold is an error, a whole number rounded too."""
    dtype = fit.wanted.numpy_dtype
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(dtype)
        lost = _lost(array, made)
    if lost.any():
        row = int(np.argmax(lost.reshape(len(array), -1).any(axis=1)))
        value = array[row][lost[row]].flat[0]
        raise DataError(
            f"{fit.array!r} has {value} in row {rows[row]}, which the model's {fit.wanted.dtype} cannot hold",
            f"scale or clip {fit.array!r} as it was for training",
        )
    return made


def _lost(array: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Where a value did not survive the cast. Floats may be rounded, not become infinite."""
    if array.dtype.kind == "b":
        return np.zeros(array.shape, dtype=bool)
    if array.dtype.kind == "f":
        return ~np.isfinite(made.astype(np.float64))
    if made.dtype.kind in "iu":
        limits = np.iinfo(made.dtype)
        return (array < limits.min) | (array > limits.max)
    return np.asarray(made.astype(array.dtype) != array)


def check_fits(dataset: RowDataset, model_inputs: tuple[TensorSpec, ...]) -> RowDataset:
    """The dataset as the model takes it: the dataset itself, or a `Fitted` that renames and casts per batch.

    A single array goes to a single input whatever its name. Floats are cast to floats, whole numbers to whole
    numbers and to floats where each value survives; floats are never cast to whole numbers.

    Raises:
        DataError: names, ranks, dims or dtypes that do not fit.
    """
    given = {spec.name: spec for spec in dataset.inputs}
    fits = []
    sizes: dict[str, tuple[str, int | str]] = {}
    for array, wanted in _pairs(tuple(given), model_inputs):
        _check_dims(given[array], wanted, sizes)
        _check_dtype(given[array], wanted)
        fits.append(_Fit(array, wanted, cast=given[array].dtype != wanted.dtype))
    if all(fit.array == fit.wanted.name and not fit.cast for fit in fits):
        return dataset
    return Fitted(dataset, tuple(fits))


def check_sizes(name: str, dims: Sequence[Dim], wanted: TensorSpec, largest: Mapping[str, int]) -> None:
    """Whether the model goes as far as an array of these dims; `largest` sizes are by the names of its dims.

    Raises:
        DataError: it does not: it has fewer positions than a row has tokens, say.
    """
    for axis, (size, dim) in enumerate(zip(dims, wanted.dims, strict=False)):
        if isinstance(size, int) and isinstance(dim, str) and size > largest.get(dim, size):
            cut = ", ".join([":"] * axis + [f":{largest[dim]}"])
            raise DataError(
                f"{name!r} has a {dim} of {size}, but this model takes {largest[dim]} at most",
                f"cut what is too long: {name} = {name}[{cut}]",
            )


def _pairs(arrays: tuple[str, ...], model_inputs: tuple[TensorSpec, ...]) -> list[tuple[str, TensorSpec]]:
    names = [spec.name for spec in model_inputs]
    if len(arrays) == 1 and len(names) == 1:
        return [(arrays[0], model_inputs[0])]
    if set(arrays) != set(names):
        missing = [name for name in names if name not in arrays]
        stranger = next((array for array in arrays if array not in names), None)
        raise DataError(
            f"the data has {', '.join(arrays)}, but the model takes {', '.join(names)}",
            f"add an array named {missing[0]!r}" + (f" (or rename {stranger!r})" if stranger else "")
            if missing
            else f"take {stranger!r} out of the data",
        )
    return [(spec.name, spec) for spec in model_inputs]


def _check_dims(given: TensorSpec, wanted: TensorSpec, sizes: dict[str, tuple[str, int | str]]) -> None:
    has, wants = _words(given), _words(wanted)
    if len(given.dims) != len(wanted.dims):
        raise DataError(
            f"array {given.name!r} is {has}, the model's input {wanted.name!r} is {wants}",
            "reshape the array; its first axis is the samples",
        )
    for dim, want in zip(given.dims[1:], wanted.dims[1:], strict=True):
        if isinstance(want, int) and isinstance(dim, str):
            raise DataError(
                f"input {wanted.name!r} of the model is {wants}: its {dim} is fixed at {want}",
                f"make all samples of that {dim}: --max-length {want}",
            )
        if isinstance(want, int) and dim != want:
            raise DataError(
                f"array {given.name!r} is {has}, the model's input {wanted.name!r} is {wants}",
                f"save it with {want} in place of {dim}",
            )
        if isinstance(want, str):
            other, size = sizes.setdefault(want, (given.name, dim))
            if size != dim:
                raise DataError(
                    f"the model wants one {want!r}, but {other!r} has {size} and {given.name!r} has {dim}",
                    "pad or cut the arrays to one size",
                )


def _words(spec: TensorSpec) -> str:
    return f"[{', '.join(map(str, spec.dims))}]"


def _check_dtype(given: TensorSpec, wanted: TensorSpec) -> None:
    from_kind, to_kind = _kind(given), _kind(wanted)
    if given.dtype == wanted.dtype or (from_kind, to_kind) in {
        ("f", "f"),
        ("i", "i"),
        ("i", "f"),
        ("b", "i"),
        ("b", "f"),
    }:
        return
    raise DataError(
        f"array {given.name!r} is {given.dtype}, the model's input {wanted.name!r} is {wanted.dtype}",
        f"save it as {wanted.dtype}: {given.name} = {given.name}.astype('{wanted.dtype}')",
    )


def _kind(spec: TensorSpec) -> str:
    kind = "f" if spec.dtype == "bfloat16" else spec.numpy_dtype.kind
    return "i" if kind == "u" else kind
