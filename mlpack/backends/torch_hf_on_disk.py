"""A Hugging Face folder whose weights stay on the disk: each module reads its own as it is called, then drops them.

What is in memory at once is the largest module's weights, in float32, and what is being computed.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mlpack.backends.torch_hf import architecture, reading_folder, refuse_missing, with_plain_attention, without_cache
from mlpack.core.memory import give_back_at_once
from mlpack.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What is smaller is read for good: scales, biases, and what an exporter folds.
_SMALL = 65_536


class Weights:
    """The tensors of a folder's safetensors by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / file for name, file in _files(folder).items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floats are float32. What it is read through is a map of the file that ends with this call."""
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
        return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


def _files(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        mapped: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return mapped
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        return dict.fromkeys(opened.keys(), "model.safetensors")


def load_on_disk(folder: Path) -> torch.nn.Module:
    """The module that config.json names, in float32: large weights are there while their module is called.

    Raises:
        ModelError: this transformers does not know the architecture, or names its weights otherwise.
    """
    give_back_at_once()
    module, kept = _without_weights(folder)
    weights = Weights(folder)
    for owner in module.modules():
        mine = {own: kept[parameter] for own, parameter in owner._parameters.items() if parameter in kept}  # noqa: SLF001 - the parameters of this module alone, tied ones under each of their names
        if mine:
            _read_while_called(owner, mine, weights)
    module.forward = _refusing(module.forward)
    return module


def stand_in(folder: Path) -> tuple[torch.nn.Module, dict[str, str]]:
    """The module to be exported, and its large parameters with the name that the folder has for each.

    They are zeros that take no memory: of them an exporter looks at shapes and types alone.

    Raises:
        ModelError: as `load_on_disk`.
    """
    module, kept = _without_weights(folder)
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for owner in module.modules():
        for own, parameter in owner._parameters.items():  # noqa: SLF001 - likewise
            if parameter in kept:
                zeros = torch.zeros(()).expand(parameter.shape)
                owner._parameters[own] = made.setdefault(parameter, torch.nn.Parameter(zeros, requires_grad=False))  # noqa: SLF001
    stored = {zeros: kept[parameter] for parameter, zeros in made.items()}
    named = module.named_parameters(remove_duplicate=False)
    return module, {name: stored[parameter] for name, parameter in named if parameter in stored}


def _without_weights(folder: Path) -> tuple[torch.nn.Module, dict[torch.nn.Parameter, str]]:
    """The module with all that is small, and the large parameters, which have no content, by their names on disk."""
    import transformers

    known = architecture(folder)
    # The automatic class, for a folder that names no architecture, has the same door under a public name.
    build = getattr(known, "_from_config", None) or known.from_config
    with reading_folder(), _parameters_without_content():
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        module = without_cache(with_plain_attention(partial(build, config, dtype=torch.float32)))
    weights = Weights(folder)
    names: dict[torch.nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    prefix = f"{module.base_model_prefix}."
    found = {each: _stored(called, weights, prefix) for each, called in names.items()}
    buffers = {name: _stored([name], weights, prefix) for name, _ in module.named_buffers()}
    lacking = [names[each][0] for each, name in found.items() if name is None]
    refuse_missing([*lacking, *_not_saved(module, buffers)], known.__name__)
    kept = {each: name for each, name in found.items() if name is not None}
    with torch.no_grad():
        for owner in module.modules():
            for own, parameter in list(owner._parameters.items()):  # noqa: SLF001
                if parameter is not None and parameter.numel() <= _SMALL:
                    owner._parameters[own] = _checked(parameter, weights.read(kept[parameter]), kept[parameter])  # noqa: SLF001
        for own, buffer in module.named_buffers():
            if (name := buffers[own]) is not None:
                buffer.copy_(_of_shape(buffer, weights.read(name), name))
    return module, {each: name for each, name in kept.items() if each.numel() > _SMALL}


def _not_saved(module: Any, buffers: dict[str, str | None]) -> list[str]:
    """The buffers that belong to the module's weights and are not in the folder, but those that it does without."""
    spared = [re.compile(each) for each in module._keys_to_ignore_on_load_missing or ()]  # noqa: SLF001 - as from_pretrained does
    kept = module.state_dict().keys()
    lacking = [name for name, stored in buffers.items() if stored is None and name in kept]
    return [name for name in lacking if not any(each.search(name) for each in spared)]


def _stored(names: list[str], weights: Weights, prefix: str) -> str | None:
    """The name in the folder of what has these in the module, if any; a model and its body differ by a prefix."""
    either = (form for name in names for form in (name, name.removeprefix(prefix), prefix + name))
    return next((form for form in either if form in weights.files), None)


@contextmanager
def _parameters_without_content() -> Iterator[None]:
    """Within it parameters have shape and type alone; buffers, which modules compute, are whole."""
    register = torch.nn.Module.register_parameter

    def registered(module: torch.nn.Module, name: str, given: torch.nn.Parameter | None) -> None:
        # One that has none already may be tied to another, and has to stay the same one.
        if given is not None and not given.is_meta:
            given = torch.nn.Parameter(given.to("meta"), requires_grad=False)
        register(module, name, given)

    torch.nn.Module.register_parameter = registered
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


def _read_while_called(owner: torch.nn.Module, mine: dict[str, str], weights: Weights) -> None:
    """Hooks around the module's forward."""
    empty = {own: owner._parameters[own] for own in mine}  # noqa: SLF001

    def entering(*_: Any) -> None:
        for own, name in mine.items():
            parameter = empty[own]
            assert parameter is not None
            owner._parameters[own] = _checked(parameter, weights.read(name), name)  # noqa: SLF001

    def leaving(*_: Any) -> None:
        owner._parameters.update(empty)  # noqa: SLF001

    owner.register_forward_pre_hook(entering)
    owner.register_forward_hook(leaving, always_call=True)


class _Refusing(TorchDispatchMode):  # type: ignore[misc] # torch is opaque to mypy here
    """Within it no operator reads a tensor without content: torch would answer with whatever lies in the memory."""

    def __torch_dispatch__(self, operator: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        if any(isinstance(each, torch.Tensor) and each.is_meta for each in pytree.tree_leaves((given, named))):
            raise ModelError(
                "this model reads weights of a layer without calling it: they cannot stay on the disk",
                "give --weights memory",
            )
        return operator(*given, **(named or {}))


def _refusing(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def refusing(*given: Any, **named: Any) -> Any:
        with _Refusing():
            return forward(*given, **named)

    return refusing


def _checked(wanted: torch.nn.Parameter, found: torch.Tensor, name: str) -> torch.nn.Parameter:
    return torch.nn.Parameter(_of_shape(wanted, found, name), requires_grad=False)


def _of_shape(wanted: torch.Tensor, found: torch.Tensor, name: str) -> torch.Tensor:
    if found.shape != wanted.shape:
        raise ModelError(
            f"{name} is {list(found.shape)} in the folder, and {list(wanted.shape)} by its config.json",
            "save both again: model.save_pretrained(FOLDER)",
        )
    return found
