"""`--shape x=8,128`: the one shape that a model with free dims is timed at, and synthetic rows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from mlpack.core.model import TensorSpec


def rows_of(texts: Sequence[str], inputs: tuple[TensorSpec, ...]) -> tuple[int, dict[str, np.ndarray]]:
    """The batch size and seeded rows for these inputs; dims of one name are one size everywhere.

    Raises:
        UsageError: not `name=8,128`, no such input, dims that do not fit, or a free dim that none of them gives.
    """
    from mlpack.datasets.random_rows import random_arrays

    by_name = {spec.name: spec for spec in inputs}
    sizes: dict[str, int] = {}
    batches: set[int] = set()
    for text in texts:
        name, _, dims = text.partition("=")
        numbers = [int(dim) for dim in dims.split(",") if dim.isascii() and dim.isdigit() and int(dim) > 0]
        if not numbers or len(numbers) != len(dims.split(",")):
            raise UsageError(f"--shape {text} is not NAME=SIZES", f"--shape {_example(inputs)}")
        if name not in by_name:
            raise unknown("input", name, by_name)
        _bind(by_name[name], numbers, sizes)
        batches.add(numbers[0])
    free = [dim for spec in inputs for dim in spec.dims if isinstance(dim, str) and dim not in sizes]
    if free or len(batches) != 1:
        what = f"leaves {free[0]!r} open" if free else f"gives more than one batch size: {sorted(batches)}"
        raise UsageError(f"--shape {' --shape '.join(texts)} {what}", f"--shape {_example(inputs)}")
    batch = batches.pop()
    return batch, random_arrays(inputs, batch, 0, sizes)


def _bind(spec: TensorSpec, numbers: list[int], sizes: dict[str, int]) -> None:
    fits = len(numbers) == len(spec.dims) and all(
        number == (dim if isinstance(dim, int) else sizes.setdefault(dim, number))
        for number, dim in zip(numbers, spec.dims, strict=True)
    )
    if not fits:
        told = ",".join(map(str, numbers))
        raise UsageError(f"--shape {spec.name}={told} does not fit the input {spec}", f"--shape {_example((spec,))}")


def _example(inputs: tuple[TensorSpec, ...]) -> str:
    each = (",".join("8" if isinstance(dim, str) else str(dim) for dim in spec.dims) for spec in inputs)
    return " --shape ".join(f"{spec.name}={dims}" for spec, dims in zip(inputs, each, strict=True))
