"""Which units go: blocks of them in the order in which they are worth least, until enough of the work is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from mlpack.pruning.groups import is_depthwise

if TYPE_CHECKING:
    from mlpack.pruning.flops import Work
    from mlpack.pruning.groups import Group, Plan

Scope = Literal["global", "uniform"]
Scores = Mapping["Group", Sequence[float]]
# A width with fewer steps than this in it is narrowed by half as much at a time; wide steps want more of them.
_FEWEST, _FEWEST_WIDE = 2, 4
_WIDE = 8


@dataclass(frozen=True)
class Block:
    """Units of one group that go together, so that what stays is a multiple; `share` of the group is gone then."""

    group: Group
    units: tuple[int, ...]
    score: float
    share: float


def step_of(width: int, multiple: int) -> int:
    """The multiple that a width is kept at: the wanted one, less for widths that have few of it."""
    step = multiple
    while step > 1 and width < (_FEWEST_WIDE if step > _WIDE else _FEWEST) * step:
        step //= 2
    return step


def blocks_of(group: Group, scores: Sequence[float], multiple: int, most: float) -> list[Block]:
    """The blocks of a group, those that are worth least first; at most this share of it, and never all."""
    # A head is many channels: those that stay are a multiple as they are.
    step = 1 if group.kind == "heads" else step_of(group.units, multiple)
    order = sorted(range(group.units), key=lambda unit: scores[unit])
    kept = (group.units - 1) // step * step
    found: list[Block] = []
    gone = 0
    while kept >= max(step, 1) and group.units - kept <= most * group.units:
        units = tuple(order[gone : group.units - kept])
        gone = group.units - kept
        found.append(Block(group, units, sum(scores[unit] for unit in units), gone / group.units))
        kept -= step
    return found


class Estimate:
    """The FLOPs of a module without some of its units, reckoned from those of its layers as they are."""

    def __init__(self, module: nn.Module, work: Work, groups: Sequence[Group]) -> None:
        self._work = work
        self._widths = {part.path: _widths(module.get_submodule(part.path)) for group in groups for part in group.parts}

    def flops(self, plan: Plan) -> float:
        """Of the whole module."""
        gone: dict[tuple[str, str], int] = defaultdict(int)
        heads: dict[str, float] = {}
        for group, units in plan.items():
            for part in group.parts:
                gone[part.path, part.side] += sum(len(part.channels[unit]) for unit in units)
            for number in group.numbers:
                heads[number.path] = 1 - len(units) / group.units
        total = 0.0
        for path, flops in self._work.flops.items():
            out, read = self._widths.get(path, (1, 1))
            kept = (1 - (gone[path, "out"] + gone[path, "both"]) / out) * (1 - gone[path, "in"] / read)
            total += flops * kept * heads.get(path, 1.0)
        return total


def _widths(layer: Any) -> tuple[int, int]:
    """Channels that it writes and reads; those of a layer that has one width for both count once."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.modules.conv._ConvNd):  # noqa: SLF001 - the one class that torch has for all of them
        return layer.out_channels, 1 if is_depthwise(layer) else layer.in_channels
    return 1, 1


def ordered(
    blocks: Mapping[Group, Sequence[Block]], scope: Scope, price: Callable[[Block], float]
) -> list[tuple[float, Block]]:
    """All blocks in the order in which they go, each with its key: what it costs, or the share of its group."""
    keyed: list[tuple[float, Block]] = []
    for each in blocks.values():
        least = 0.0
        for block in each:
            # A block cannot go before those of its group that are worth less.
            least = max(least, price(block) if scope == "global" else block.share)
            keyed.append((least, block))
    return sorted(keyed, key=lambda pair: pair[0])


def first(order: Sequence[tuple[float, Block]], count: int) -> dict[Group, list[int]]:
    """The plan of the first blocks."""
    plan: dict[Group, list[int]] = defaultdict(list)
    for _, block in order[:count]:
        plan[block.group] += block.units
    return dict(plan)


def enough(order: Sequence[tuple[float, Block]], wanted: float, estimate: Estimate) -> int:
    """How many of the blocks have to go for at most so many FLOPs to be left; all of them where that is not enough."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if estimate.flops(first(order, middle)) <= wanted:
            high = middle
        else:
            low = middle + 1
    return low
