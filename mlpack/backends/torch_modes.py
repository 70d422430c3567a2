"""Puts a module into the state that it is served in: inference mode, float32; says what that changes."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_HALVES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
# What does something else in training than it does later.
_DIFFERENT = ("BatchNorm", "SyncBatchNorm", "Dropout", "AlphaDropout", "FeatureAlphaDropout")


def made_ready(module: torch.nn.Module, tell: Callable[[str], None], *, modes_count: bool = True) -> torch.nn.Module:
    """The module in inference mode, its half-precision weights widened to float32.

    `tell` hears one line about each thing that changes answers. Without `modes_count` nothing is said of the mode: a
    module that was made anew around weights from a file is always in training mode.
    """
    if modes_count and any(each.training and _differs(each) for each in module.modules()):
        tell("the module came in training mode: batch norms and dropout are switched to inference, module.eval()")
    found = {tensor.dtype for tensor in chain(module.parameters(), module.buffers())}
    halves = [name for dtype, name in _HALVES.items() if dtype in found]
    if halves:
        tell(widened(halves[0]))
        module = module.float()
    return module.eval()


def widened(dtype: str) -> str:
    """What is said of weights in half precision: CPUs compute in float32, and the flags narrow them again."""
    return f"the weights are {dtype}: widened to float32, which the numerics flags narrow again"


def _differs(module: torch.nn.Module) -> bool:
    kind = getattr(module, "original_name", type(module).__name__)
    return bool(kind.startswith(_DIFFERENT)) and getattr(module, "p", 1) != 0
