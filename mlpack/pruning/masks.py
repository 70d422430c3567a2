"""Zeros in the weights of convolutions and linear layers: anywhere, or two of every four that are summed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Pattern = Literal["unstructured", "2:4"]
_OF, _KEPT = 4, 2


@dataclass(frozen=True)
class Masked:
    """How many of a layer's weights are zero."""

    path: str
    weights: int
    zeros: int


def weighted(module: nn.Module, pattern: Pattern) -> dict[str, torch.nn.Parameter]:
    """The weights of its convolutions and linear layers by path; of shared ones, one.

    Transposed convolutions have no 2:4: there what is summed over comes first, and no kernel has it sparse.
    """
    kinds = (nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001 - the one class that torch has for all of them
    transposed = nn.modules.conv._ConvTransposeNd  # noqa: SLF001 - as above
    found: dict[str, torch.nn.Parameter] = {}
    for path, layer in module.named_modules():
        if pattern == "2:4" and isinstance(layer, transposed):
            continue
        if isinstance(layer, kinds) and not any(layer.weight is other for other in found.values()):
            found[path] = layer.weight
    return found


def mask(
    weights: Mapping[str, torch.Tensor], scores: Mapping[str, torch.Tensor], pattern: Pattern, amount: float
) -> list[Masked]:
    """Set the weights to zero whose scores are lowest; in place.

    `unstructured`: this share of all. `2:4`: two of each four in a row along what is summed over, so that layers whose
    width is no multiple of four are left.
    """
    if pattern == "2:4":
        chosen = {path: _two_of_four(weights[path], scores[path]) for path in weights}
    else:
        everything = torch.cat([scores[path].flatten() for path in weights])
        count = round(amount * everything.numel())
        lowest = torch.zeros(everything.numel(), dtype=torch.bool)
        # By place where scores are equal, so that neither more nor fewer go.
        lowest[torch.argsort(everything, stable=True)[:count]] = True
        parts = lowest.split([scores[path].numel() for path in weights])
        chosen = {path: part.view_as(scores[path]) for path, part in zip(weights, parts, strict=True)}
    with torch.no_grad():
        for path, gone in chosen.items():
            weights[path].masked_fill_(gone, 0)
    return [Masked(path, weights[path].numel(), int((weights[path] == 0).sum())) for path in weights]


def _two_of_four(weight: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """Which go. What is summed over is a linear layer's input, and the input channels of a convolution."""
    gone = torch.zeros_like(weight, dtype=torch.bool)
    if weight.shape[1] % _OF:
        return gone
    # [out, in, ...] with the four side by side at the end.
    rows = score.movedim(1, -1)
    fours = rows.reshape(*rows.shape[:-1], -1, _OF)
    lowest = fours.argsort(dim=-1, stable=True)[..., : _OF - _KEPT]
    marked = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, lowest, True)
    gone.copy_(marked.reshape(rows.shape).movedim(-1, 1))
    return gone
