"""Which widths hang together: groups of channels, neurons or heads, found by torch-pruning's dependency graph.

What goes of a group goes in all of its layers at once. Each group is tried: the narrowed module has to answer as the
module whose units are zeros does. So what the graph did not understand is left alone and never answers wrongly.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch_pruning as tp
from torch import nn

from mlpack.errors import StageFailed
from mlpack.pruning.heads import Number, head_of
from mlpack.pruning.running import MISFITS, answers, layer_by_layer, same

if TYPE_CHECKING:
    from mlpack.pruning.running import Call

Kind = Literal["channels", "neurons", "heads"]
Side = Literal["out", "in", "both"]
# Layers whose unit i depends on nothing but unit i: without it the others stay as they are.
_CONVOLUTION = nn.modules.conv._ConvNd  # noqa: SLF001 - the one class that torch has for all of them
_NORM = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # noqa: SLF001 - likewise
_SEPARATE = (_CONVOLUTION, nn.Linear, *_NORM, nn.PReLU, nn.Embedding)


@dataclass(frozen=True)
class Part:
    """One side of one layer: the function that narrows it, and its channels by unit of the group."""

    path: str
    side: Side
    narrow: Callable[[nn.Module, list[int]], Any]
    channels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can go, each from all of `parts` at once; `numbers` are attributes that count them."""

    name: str
    kind: Kind
    units: int
    parts: tuple[Part, ...]
    numbers: tuple[Number, ...]
    magnitude: tuple[float, ...]

    @property
    def channels_per_unit(self) -> int:
        """Of the layer that the group is named after."""
        return len(self.parts[0].channels[0])


Plan = Mapping[Group, Sequence[int]]
"""Units that go, by group."""


@dataclass(frozen=True)
class Left:
    """What is not pruned, and why."""

    name: str
    why: str


def find_groups(module: nn.Module, call: Call) -> tuple[list[Group], list[Left]]:
    """All groups that can be narrowed, and what is left alone.

    Raises:
        StageFailed: torch-pruning cannot follow the module.
    """
    paths = {each: path for path, each in module.named_modules()}
    graph = _graph(module, call)
    found: list[Group] = []
    left: list[Left] = []
    roots = [_CONVOLUTION, nn.Linear]
    for traced in graph.get_all_groups(root_module_types=roots):
        name = paths[traced[0].dep.target.module]
        reason = _inseparable(traced)
        if reason is not None:
            left.append(Left(name, reason))
            continue
        group = _group(traced, module, paths)
        if group.units < 2:  # noqa: PLR2004 - one has to stay
            left.append(Left(name, "has one unit"))
        elif tried(module, call, {group: range(0, group.units, 2)}):
            found.append(group)
        else:
            left.append(Left(name, "its width is an output's, or goes where the graph cannot follow"))
    return found, left


def _graph(module: nn.Module, call: Call) -> Any:
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(requires_grad=True)
    try:
        with warnings.catch_warnings(), layer_by_layer(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return tp.DependencyGraph().build_dependency(
                module,
                example_inputs=(),
                forward_fn=lambda traced, _: [each for each in call(traced) if each.grad_fn is not None],
                verbose=False,
            )
    except MISFITS as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StageFailed(
            f"torch-pruning cannot follow this module: {type(error).__name__}: {reason}",
            "what it follows are modules whose forward() runs on the rows with gradients; masks need none of that: "
            "--set prune.pattern=unstructured",
        ) from error


def _inseparable(traced: Any) -> str | None:
    """Why units of this group cannot go without a change to others, or None."""
    kinds = tp.ops.OPTYPE
    for dep, _ in traced:
        target = dep.target
        if target.type == kinds.OUTPUT:
            return "its width is an output's"
        if target.type in {kinds.LN, kinds.GN}:
            return f"a {type(target.module).__name__} takes its units together"
        if target.type == kinds.MHA:
            return "torch's MultiheadAttention ties the number of heads to its width"
        if target.type == kinds.PARAMETER:
            return "a parameter outside of any layer has its width"
        named = isinstance(target.module, nn.Module) and target.type != kinds.ELEMENTWISE
        is_layer = named and not type(target.module).__module__.startswith("torch_pruning")
        if is_layer and not isinstance(target.module, _SEPARATE):
            return f"a {type(target.module).__name__} has its width"
    return None


def _group(traced: Any, module: nn.Module, paths: Mapping[nn.Module, str]) -> Group:
    layers = [
        (item.dep.target.module, item.dep.handler, item.idxs, item.root_idxs)
        for item in traced
        if item.dep.target.module in paths and isinstance(item.dep.target.module, _SEPARATE)
    ]
    width = len(traced[0].root_idxs)
    written = [layer for layer, handler, *_ in layers if _side(layer, handler) == "out"]
    head = head_of(module, [(paths[each], each) for each in written if isinstance(each, nn.Linear)], width)
    repeats = max((layer.groups for layer, *_ in layers if _is_grouped(layer)), default=1)
    size = 1 if head is None else head.size
    units = width // size if head is not None else width // repeats

    def unit_of(channel: int) -> int:
        return channel // size if head is not None else channel % units

    parts = []
    for layer, handler, indexes, roots in layers:
        by_unit: dict[int, list[int]] = defaultdict(list)
        for index, root in zip(indexes, roots, strict=True):
            by_unit[unit_of(root)].append(index)
        channels = tuple(tuple(sorted(by_unit[unit])) for unit in range(units))
        parts.append(Part(paths[layer], _side(layer, handler), handler, channels))
    linear = all(isinstance(each, nn.Linear) for each in written)
    kind: Kind = "heads" if head is not None else "neurons" if linear else "channels"
    return Group(
        name=paths[traced[0].dep.target.module],
        kind=kind,
        units=units,
        parts=tuple(parts),
        numbers=() if head is None else head.numbers,
        magnitude=_magnitude(traced, width, units, unit_of),
    )


def _magnitude(traced: Any, width: int, units: int, unit_of: Callable[[int], int]) -> tuple[float, ...]:
    """torch-pruning's norm of each unit's weights in all layers of the group, 1 on average."""
    scores = tp.importance.GroupMagnitudeImportance(p=2)(traced)
    if scores is None:
        return (1.0,) * units
    found = [0.0] * units
    for channel in range(width):
        found[unit_of(channel)] += float(scores[channel]) * units / width
    return tuple(found)


def _side(layer: nn.Module, handler: Any) -> Side:
    """Which side of a layer the function narrows; layers that have one width for both have one function."""
    if not isinstance(layer, (_CONVOLUTION, nn.Linear)) or is_depthwise(layer):
        return "both"
    return "out" if handler.__name__ == "prune_out_channels" else "in"


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each channel is filtered by itself."""
    return isinstance(layer, _CONVOLUTION) and layer.groups == layer.out_channels and layer.out_channels > 1


def _is_grouped(layer: nn.Module) -> bool:
    return isinstance(layer, _CONVOLUTION) and layer.groups > 1 and not is_depthwise(layer)


def tried(module: nn.Module, call: Call, plan: Plan) -> bool:
    """Whether the module without these units answers as the one in which they are zeros."""
    narrow, zeros = copy.deepcopy(module), copy.deepcopy(module)
    try:
        narrow_by(narrow, plan)
        with torch.no_grad():
            _silence(zeros, plan)
    except MISFITS:
        return False
    return same(answers(zeros, call), answers(narrow, call))


def narrow_by(module: nn.Module, plan: Plan) -> None:
    """Take the units out of all their layers; in place."""
    gone: dict[tuple[str, Any], set[int]] = defaultdict(set)
    for group, units in plan.items():
        for part in group.parts:
            gone[part.path, part.narrow] |= {channel for unit in units for channel in part.channels[unit]}
        for number in group.numbers:
            number.lower(module, len(units))
    for (path, narrow), channels in gone.items():
        if channels:
            narrow(module.get_submodule(path), sorted(channels))


def _silence(module: nn.Module, plan: Plan) -> None:
    """Set to zero what writes and what reads the units; in place."""
    for group, units in plan.items():
        for part in group.parts:
            channels = [channel for unit in units for channel in part.channels[unit]]
            _zero(module.get_submodule(part.path), part.side, channels)


def _zero(layer: Any, side: Side, channels: list[int]) -> None:
    if isinstance(layer, nn.PReLU):
        return
    if isinstance(layer, nn.Embedding) or (side == "in" and isinstance(layer, nn.Linear)):
        layer.weight[:, channels] = 0
        return
    axis = 1 if getattr(layer, "transposed", False) else 0
    if side == "in":
        each = layer.in_channels // layer.groups
        layer.weight.index_fill_(1 - axis, torch.tensor([channel % each for channel in channels]), 0)
        return
    for tensor, along in ((layer.weight, axis), (layer.bias, 0)):
        if tensor is not None:
            tensor.index_fill_(along, torch.tensor(channels), 0)
