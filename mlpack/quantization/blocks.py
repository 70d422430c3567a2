"""Weights in blocks of few bits, as ONNX Runtime's MatMulNBits and GatherBlockQuantized keep them.

The layout is that of the operators' schemas (docs/ContribOperators.md in ONNX Runtime's repository): blocks run along
K, the first of two numbers in a byte lies in its lower half, and so does the zero point of the first of two blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

_BYTE = 8


@dataclass(frozen=True)
class Form:
    """How weights are kept: so many bits each, one scale for so many of them, zero in the middle or where it fits."""

    block: int
    symmetric: bool = False
    bits: int = 4

    @property
    def middle(self) -> int:
        """The integer that stands for zero where none is written down."""
        return 1 << (self.bits - 1)

    @property
    def most(self) -> int:
        """The largest integer."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Grid:
    """The steps of blocks: a weight is kept as `round(w / scale) + zero`. Both are float32 [N, blocks, 1].

    A scale may be below zero: the largest magnitude then lies on the side that has one integer more.
    """

    scale: np.ndarray
    zero: np.ndarray
    most: int

    def integers(self, blocks: np.ndarray) -> np.ndarray:
        """The nearest integers, still as floats."""
        steps = np.rint(blocks / self.scale)
        steps += self.zero
        return np.asarray(np.clip(steps, 0, self.most, out=steps))

    def floats(self, integers: np.ndarray) -> np.ndarray:
        """What integers stand for."""
        return np.asarray((integers - self.zero) * self.scale)


class Packed(NamedTuple):
    """A matrix of K × N as N rows of blocks.

    `packed` is uint8 [N, blocks, block · bits / 8]; `scales` [N, blocks] in the type of the weights; `zero_points`
    uint8 [N, ceil(blocks · bits / 8)], None where all of them are the middle.
    """

    packed: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None


Find = Callable[[np.ndarray, Form, "np.dtype[Any]"], Grid]


def quantize_blocks(weight: np.ndarray, form: Form, find: Find | None = None) -> Packed:
    """A weight [K, N] in blocks, each number the nearest on the grid that `find` gives; by default `extremes`."""
    blocks = in_blocks(weight, form.block)
    grid = (find or extremes)(blocks, form, weight.dtype)
    return pack(grid.integers(blocks), grid, form, weight.dtype)


def dequantize_blocks(kept: Packed, rows: int, form: Form) -> np.ndarray:
    """The weight [K, N] that is kept, where K is `rows`."""
    count, width = kept.scales.shape
    numbers = _apart(kept.packed, form.bits)
    zero: np.ndarray | int = form.middle
    if kept.zero_points is not None:
        zero = _apart(kept.zero_points, form.bits)[:, :width, None]
    scale = kept.scales.astype(np.float32)[:, :, None]
    return np.asarray(((numbers.astype(np.float32) - zero) * scale).reshape(count, -1)[:, :rows].T)


def whole_numbers(kept: Packed, rows: int, form: Form) -> np.ndarray:
    """The integers that are kept, uint8 [N, K], where K is `rows`."""
    return _apart(kept.packed, form.bits).reshape(len(kept.packed), -1)[:, :rows]


def in_blocks(weight: np.ndarray, block: int) -> np.ndarray:
    """A weight [K, N] as float32 [N, blocks, block]; what the last block lacks is zero."""
    rows = weight.T.astype(np.float32)
    lacking = -rows.shape[1] % block
    if lacking:
        rows = np.pad(rows, ((0, 0), (0, lacking)))
    return rows.reshape(len(rows), -1, block)


def pack(integers: np.ndarray, grid: Grid, form: Form, dtype: np.dtype[Any]) -> Packed:
    """Integers [N, blocks, block] on their grid, in bytes."""
    count, width = integers.shape[:2]
    zero_points = None
    if not form.symmetric:
        zeros = grid.zero.reshape(count, width).astype(np.uint8)
        zero_points = _together(np.pad(zeros, ((0, 0), (0, -width % (_BYTE // form.bits)))), form.bits)
    scales = np.ascontiguousarray(grid.scale.reshape(count, width).astype(dtype))
    return Packed(_together(integers.astype(np.uint8), form.bits), scales, zero_points)


def extremes(blocks: np.ndarray, form: Form, dtype: np.dtype[Any]) -> Grid:
    """The grid that reaches to the extremes of each block, and has zero on it."""
    low = np.minimum(blocks.min(axis=-1, keepdims=True), 0)
    high = np.maximum(blocks.max(axis=-1, keepdims=True), 0)
    if form.symmetric:
        return grid_of(np.where(high > -low, high, low) / -form.middle, None, form, dtype)
    scale = (high - low) / form.most
    zero = np.rint(np.divide(-low, scale, out=np.zeros_like(low), where=scale != 0))
    return grid_of(scale, zero, form, dtype)


def magnitudes(blocks: np.ndarray, form: Form, dtype: np.dtype[Any]) -> Grid:
    """A symmetric grid that reaches to the largest magnitude on both sides: its scales are above zero."""
    return grid_of(np.abs(blocks).max(axis=-1, keepdims=True) / (form.middle - 1), None, form, dtype)


def grid_of(scale: np.ndarray, zero: np.ndarray | None, form: Form, dtype: np.dtype[Any]) -> Grid:
    """A grid with scales such as the type of the weights can hold; a block of zeros has one all the same."""
    kept = scale.astype(dtype).astype(np.float32)
    kept = np.where(np.isfinite(kept) & (kept != 0), kept, np.float32(1))
    return Grid(kept, np.full_like(kept, form.middle) if zero is None else zero, form.most)


def _together(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Uint8 numbers of few bits, as many in a byte as fit, along the last axis."""
    each = _BYTE // bits
    found = numbers[..., ::each].copy()
    for at in range(1, each):
        found |= numbers[..., at::each] << np.uint8(at * bits)
    return found


def _apart(packed: np.ndarray, bits: int) -> np.ndarray:
    """The numbers of each byte, along the last axis."""
    shifts = np.arange(0, _BYTE, bits, dtype=np.uint8)
    numbers = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return numbers.reshape(*packed.shape[:-1], -1)
