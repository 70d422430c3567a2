"""Counts what a module computes and holds, module by module: multiply-adds twice, as two operations, and parameters."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mlpack.pruning.running import layer_by_layer

if TYPE_CHECKING:
    from torch import nn

    from mlpack.pruning.running import Call


@dataclass(frozen=True)
class Work:
    """FLOPs of convolutions and products by the path of the innermost module that asked for them, and parameters."""

    flops: dict[str, int]
    parameters: dict[str, int]

    @property
    def all_flops(self) -> int:
        """Of the whole module."""
        return sum(self.flops.values())

    @property
    def all_parameters(self) -> int:
        """Of the whole module; what two modules share counts for one of them."""
        return sum(self.parameters.values())


def work_of(module: nn.Module, call: Call) -> Work:
    """What one call costs, and what the module holds."""
    counter = _Counter()
    hooks = []
    for path, each in module.named_modules():
        hooks.append(each.register_forward_pre_hook(counter.entering(path)))
        hooks.append(each.register_forward_hook(counter.leaving))
    try:
        with torch.no_grad(), _in_products(), counter:
            call(module)
    finally:
        for hook in hooks:
            hook.remove()
    seen: set[int] = set()
    parameters: dict[str, int] = {}
    for path, each in module.named_modules():
        own = [tensor for tensor in each.parameters(recurse=False) if id(tensor) not in seen]
        seen |= {id(tensor) for tensor in own}
        parameters[path] = sum(tensor.numel() for tensor in own)
    return Work(dict(counter.found), {path: count for path, count in parameters.items() if count})


@contextlib.contextmanager
def _in_products() -> Iterator[None]:
    """Within it attentions run as the products that they are: torch has no formula for the kernel of CPUs."""
    with layer_by_layer(), sdpa_kernel(SDPBackend.MATH):
        yield


def _of_lstm(given: torch.Tensor, of_input: torch.Tensor, of_state: torch.Tensor, *_: Any, **__: Any) -> int:
    """Of oneDNN's kernel for one way of one layer: at each place its weights are multiplied once."""
    places: int = given.numel() // given.shape[-1]
    weights: int = of_input.numel() + of_state.numel()
    return 2 * places * weights


_FORMULAS = {**flop_registry, torch.ops.aten.mkldnn_rnn_layer: _of_lstm}


class _Counter(TorchDispatchMode):  # type: ignore[misc] # torch is opaque to mypy here
    """Adds up the operations of products and convolutions under the module that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = defaultdict(int)
        self._inside: list[str] = []

    def entering(self, path: str) -> Any:
        """The hook of the module with this path."""

        def hook(*_: Any) -> None:
            self._inside.append(path)

        return hook

    def leaving(self, *_: Any) -> None:
        """The hook of every module as it ends."""
        self._inside.pop()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = function(*args, **(kwargs or {}))
        count = _FORMULAS.get(function.overloadpacket)
        if count is not None:
            self.found[self._inside[-1] if self._inside else ""] += int(count(*args, **(kwargs or {}), out_val=made))
        return made
