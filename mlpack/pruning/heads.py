"""Tells the heads of an attention from other neurons, by the numbers that its module keeps of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

# num_attention_heads (BERT, ViT), n_heads (DistilBERT), num_heads, nheads.
_COUNTS = re.compile(r"(n|num|number_of)_?(attention_|attn_)?heads?|heads|h")
# all_head_size (BERT), inner_dim, dim (DistilBERT): the width of all heads together.
_WIDTHS = re.compile(r"all_head_size|inner_dim|dim|embed_dim")
_PROJECTIONS = 2


@dataclass(frozen=True)
class Number:
    """An attribute that falls by `each` for every unit that goes."""

    path: str
    name: str
    each: int

    def lower(self, module: nn.Module, units: int) -> None:
        """In place."""
        owner = module.get_submodule(self.path)
        setattr(owner, self.name, getattr(owner, self.name) - self.each * units)


@dataclass(frozen=True)
class Head:
    """How many channels a head has, and the attributes that follow from the number of heads."""

    size: int
    numbers: tuple[Number, ...]


def head_of(module: nn.Module, written: Sequence[tuple[str, nn.Linear]], width: int) -> Head | None:
    """The head of an attention whose queries, keys and values these linear layers write; None where they are others.

    Two of them at least belong to one module, which says how many heads there are.
    """
    parents = {path.rpartition(".")[0] for path, _ in written}
    if len(written) < _PROJECTIONS or len(parents) != 1:
        return None
    (parent,) = parents
    kept = {name: value for name, value in vars(module.get_submodule(parent)).items() if type(value) is int}
    counts = [name for name in kept if _COUNTS.fullmatch(name) and kept[name] > 0 and width % kept[name] == 0]
    if not counts:
        return None
    size = width // kept[counts[0]]
    numbers = [Number(parent, name, 1) for name in counts if kept[name] == kept[counts[0]]]
    numbers += [Number(parent, name, size) for name in kept if _WIDTHS.fullmatch(name) and kept[name] == width]
    return Head(size, tuple(numbers))
