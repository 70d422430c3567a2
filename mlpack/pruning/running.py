"""Runs modules that are built alike on the same rows, and tells how far their answers are apart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

Call = Callable[[nn.Module], Sequence[torch.Tensor]]
"""Runs a module, the original or one that was changed, on rows that are always the same."""

# What torch raises where sizes do not fit one another.
MISFITS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError, AttributeError)
_SAME = 1e-4


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    """Within it torch's transformer layers run their parts, not one kernel in place of all of them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(value=before)


def answers(module: nn.Module, call: Call) -> tuple[torch.Tensor, ...] | None:
    """What it answers; None where it does not run."""
    try:
        with torch.no_grad():
            return tuple(call(module))
    except MISFITS:
        return None


def same(one: Sequence[torch.Tensor] | None, other: Sequence[torch.Tensor] | None) -> bool:
    """Whether both run and answer the same, but for rounding."""
    return distance(one, other) <= _SAME


def distance(one: Sequence[torch.Tensor] | None, other: Sequence[torch.Tensor] | None) -> float:
    """The largest relative L2 difference of an output; infinite where one does not run or gives other shapes."""
    if one is None or other is None or len(one) != len(other):
        return float("inf")
    return max((_relative(each, its) for each, its in zip(one, other, strict=True)), default=0.0)


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    here, there = one.double(), other.double()
    apart, size = float(torch.linalg.vector_norm(here - there)), float(torch.linalg.vector_norm(here))
    if apart == 0:
        return 0.0
    return apart / size if size and apart == apart else float("inf")  # noqa: PLR0124 - NaN
