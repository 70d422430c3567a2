"""Takes whole layers out of a module's lists, those first whose absence changes its answers least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from mlpack.pruning.running import answers, distance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.pruning.running import Call

_FEWEST = 2


@dataclass(frozen=True)
class Taken:
    """A layer that was taken out: where it was in its list, and how far the answers moved."""

    path: str
    moved: float


def take_layers(module: nn.Module, call: Call, count: int) -> list[Taken]:
    """Take this many layers out, one after the other; in place. Fewer where no more can go.

    A layer is a module with parts of its own that lies in a list with others of its kind.
    """
    before = answers(module, call)
    taken: list[Taken] = []
    places = {id(each): f"{path}.{at}" for path, row in _rows(module) for at, each in enumerate(row)}
    while len(taken) < count:
        best: tuple[float, nn.ModuleList | nn.Sequential, int] | None = None
        for _, row in list(_rows(module)):
            for at in range(len(row)):
                layer = row[at]
                del row[at]
                moved = distance(before, answers(module, call))
                row.insert(at, layer)
                if moved < (float("inf") if best is None else best[0]):
                    best = moved, row, at
        if best is None:
            break
        moved, row, at = best
        taken.append(Taken(places[id(row[at])], moved))
        del row[at]
    return taken


def _rows(module: nn.Module) -> Iterator[tuple[str, nn.ModuleList | nn.Sequential]]:
    """Lists of at least two layers of one kind."""
    for path, each in module.named_modules():
        if not isinstance(each, nn.ModuleList | nn.Sequential) or len(each) < _FEWEST:
            continue
        kinds = {type(layer) for layer in each}
        if len(kinds) == 1 and all(next(layer.children(), None) is not None for layer in each):
            yield path, each
