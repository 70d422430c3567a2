"""GPTQ: weights are rounded one input after the other, and what rounding costs is made good by those still to come.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, ICLR 2023,
algorithm 1: the Hessian of a layer's squared error is H = Σ xxᵀ, and one Cholesky factor of its inverse holds all the
updates. H adds up while batches stream through the float graph, so memory does not grow with samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlpack.quantization.blocks import Find, Form, Grid, Packed, in_blocks, pack
from mlpack.quantization.stream import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx

    from mlpack.quantization.shown import Arrays

# Hessians of so many bytes are gathered in one pass over the rows: a deep model takes several passes, not more memory.
_HELD_BYTES = 512 << 20
# The paper's lazy updates: what lies beyond so many inputs is brought up to date once for all of them.
_TOGETHER = 128


def hessians(
    graph: onnx.ModelProto,
    widths: Mapping[str, int],
    batches: Callable[[], Iterable[Arrays]],
    *,
    threads: int,
    cut: bool,
) -> Iterator[dict[str, np.ndarray]]:
    """Σ xxᵀ over all rows of these tensors, [K, K], some tensors at a time: as many as fit 512 MB.

    Args:
        graph: the float graph.
        widths: the last dim of each tensor, by name.
        batches: gives the calibration feeds, anew for each pass.
        threads: of ONNX Runtime.
        cut: whether batches may be run in parts.
    """
    for names in _passes(widths):
        sums = {name: np.zeros((widths[name], widths[name]), np.float32) for name in names}

        def see(values: Arrays, sums: Mapping[str, np.ndarray] = sums) -> None:
            for name, total in sums.items():
                rows = values[name].reshape(-1, values[name].shape[-1]).astype(np.float32)
                np.add(total, rows.T @ rows, out=total)

        stream(graph, names, batches(), see, threads=threads, cut=cut)
        yield sums


def _passes(widths: Mapping[str, int]) -> Iterator[Sequence[str]]:
    """The tensors in groups, in their order; one that alone is too large is a group of its own."""
    group: list[str] = []
    held = 0
    for name, width in widths.items():
        size = 4 * width * width
        if group and held + size > _HELD_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def quantize_by_answers(
    weight: np.ndarray, hessian: np.ndarray, form: Form, find: Find, *, damping: float, act_order: bool
) -> Packed:
    """A weight [K, N] in blocks, rounded so that the layer's answers stay where they were.

    Args:
        weight: float32 or float16.
        hessian: Σ xxᵀ of the layer's inputs, [K, K].
        form: how weights are kept.
        find: the grid of a block.
        damping: what is added to the diagonal, as a share of its mean.
        act_order: inputs that weigh most are rounded first, on the grids of the weights as they were; else inputs come
            in their order, and a block's grid is that of what is left of its weights when its turn comes.
    """
    rows = weight.astype(np.float32)
    size, count = rows.shape
    blocks = -(-size // form.block)
    grid = find(in_blocks(weight, form.block), form, weight.dtype)
    scale, zero = grid.scale[:, :, 0].T.copy(), grid.zero[:, :, 0].T.copy()
    order = np.argsort(-hessian.diagonal(), kind="stable") if act_order else np.arange(size)
    rows = rows[order]
    factor = _factor(hessian[np.ix_(order, order)], damping)
    # What the last block lacks stands for zero.
    integers = np.repeat(zero, form.block, axis=0)
    for start in range(0, size, _TOGETHER):
        end = min(start + _TOGETHER, size)
        errors = np.empty((end - start, count), np.float32)
        for at in range(start, end):
            block, inside = divmod(int(order[at]), form.block)
            if not act_order and inside == 0:
                left = find(in_blocks(rows[at : at + form.block], form.block), form, weight.dtype)
                scale[block], zero[block] = left.scale[:, 0, 0], left.zero[:, 0, 0]
            kept = Grid(scale[block], zero[block], form.most)
            integers[order[at]] = kept.integers(rows[at])
            error = (rows[at] - kept.floats(integers[order[at]])) / factor[at, at]
            rows[at + 1 : end] -= factor[at, at + 1 : end, None] * error
            errors[at - start] = error
        rows[end:] -= factor[start:end, end:].T @ errors
    whole = Grid(scale.T[:, :, None], zero.T[:, :, None], form.most)
    integers[size:] = zero[-1]
    return pack(integers.T.reshape(count, blocks, form.block), whole, form, weight.dtype)


def _factor(hessian: np.ndarray, damping: float) -> np.ndarray:
    """U, upper triangular, with UᵀU the inverse of the damped Hessian; damped harder until there is one."""
    from scipy.linalg import solve_triangular

    exact = hessian.astype(np.float64)
    mean = float(exact.diagonal().mean()) or 1.0
    identity = np.eye(len(exact))
    while True:
        # From the last row and column backwards, H = R Rᵀ with R upper triangular: then U is the inverse of R.
        turned = (exact + damping * mean * identity)[::-1, ::-1]
        try:
            lower = np.linalg.cholesky(turned)
        except np.linalg.LinAlgError:
            damping *= 10
            continue
        return np.asarray(solve_triangular(lower[::-1, ::-1], identity, lower=False), np.float32)
