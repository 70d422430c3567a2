"""Half-quadratic quantization: the scale and zero of each block, from its weights alone.

Source: Badri, Shaji: Half-Quadratic Quantization of Large Machine Learning Models, 2023 (mobiusml.github.io/hqq_blog).
An l_p norm of the error, p < 1, is split into two halves that are solved in turns: which part of the error is left to
stand, by a shrinkage, and the grid that fits the rest. The paper moves the zero alone, in float, and leaves the scale;
the operators' fast kernels want whole zeros, so here both are fitted, by least squares, and the zero is rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.quantization.blocks import Find, Form, Grid, extremes, grid_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_NORM = 0.7
# In steps of the grid, not in units of the weights: a weight of 0.02 and one of 20 are shrunk alike.
_STIFFNESS = 10.0
_STIFFER = 1.01
_ROUNDS = 20
# Weights that are looked at together: what is between the steps takes some ten times their bytes.
_AT_ONCE = 1 << 20


def half_quadratic(blocks: np.ndarray, form: Form, dtype: np.dtype[Any], start: Find = extremes) -> Grid:
    """The best grid of each block that was met on the way from where `start` begins, by its squared error."""
    found = [_fitted(part, start(part, form, dtype), form, dtype) for part in _parts(blocks)]
    scale, zero = (np.concatenate([getattr(each, name) for each in found]) for name in ("scale", "zero"))
    return Grid(scale, zero, form.most)


def _parts(blocks: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, _AT_ONCE // (blocks.shape[1] * blocks.shape[2]))
    return (blocks[at : at + rows] for at in range(0, len(blocks), rows))


def _fitted(blocks: np.ndarray, grid: Grid, form: Form, dtype: np.dtype[Any]) -> Grid:
    scale, zero = grid.scale.copy(), grid.zero.copy()
    integers = grid.integers(blocks)
    best = _squares(blocks - grid.floats(integers))
    stiffness = _STIFFNESS
    for _ in range(_ROUNDS):
        wanted = blocks - grid.scale * _shrunk((blocks - grid.floats(integers)) / grid.scale, stiffness)
        grid = _least_squares(wanted, integers, grid, form, dtype)
        integers = grid.integers(blocks)
        error = _squares(blocks - grid.floats(integers))
        better = error < best
        if not better.any():
            break
        best = np.where(better, error, best)
        scale, zero = np.where(better, grid.scale, scale), np.where(better, grid.zero, zero)
        stiffness *= _STIFFER
    return Grid(scale, zero, form.most)


def _least_squares(wanted: np.ndarray, integers: np.ndarray, grid: Grid, form: Form, dtype: np.dtype[Any]) -> Grid:
    """The grid on which these integers are nearest to what is wanted; as it was where all integers are one."""
    if form.symmetric:
        steps = integers - form.middle
        power = _squares(steps)
        product = (steps * wanted).sum(axis=-1, keepdims=True)
        return grid_of(np.divide(product, power, out=grid.scale.copy(), where=power > 0), None, form, dtype)
    middle, mean = integers.mean(axis=-1, keepdims=True), wanted.mean(axis=-1, keepdims=True)
    apart = integers - middle
    power = _squares(apart)
    product = (apart * (wanted - mean)).sum(axis=-1, keepdims=True)
    scale = np.divide(product, power, out=grid.scale.copy(), where=(power > 0) & (product > 0))
    zero = np.clip(np.rint(middle - mean / scale), 0, form.most)
    return grid_of(scale, zero, form, dtype)


def _shrunk(error: np.ndarray, stiffness: float) -> np.ndarray:
    """The part of each error that is left to stand: none of small ones, most of large ones."""
    size = np.abs(error)
    left = np.maximum(size - (size + 1e-8) ** (_NORM - 1) / stiffness, 0)
    return np.asarray(np.copysign(left, error))


def _squares(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.square(values).sum(axis=-1, keepdims=True))
