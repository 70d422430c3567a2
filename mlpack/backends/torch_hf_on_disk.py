"""A Hugging Face folder whose weights stay on the disk: each module reads its own as it is called, then drops them.

What is in memory at once is the largest module's weights, in float32, and what is being computed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mlpack.backends.torch_hf import architecture, reading_folder, refuse_missing, with_plain_attention, without_cache
from mlpack.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    module, kept = _without_weights(folder)
    weights = Weights(folder)
    for owner in module.modules():
        mine = {own: kept[parameter] for own, parameter in owner._parameters.items() if parameter in kept}  # noqa: SLF001 - the parameters of this module alone, tied ones under each of their names
        if mine:
            _read_while_called(owner, mine, weights)
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
    found = {each: _stored(called, weights, f"{module.base_model_prefix}.") for each, called in names.items()}
    refuse_missing([names[each][0] for each, name in found.items() if name is None], known.__name__)
    kept = {each: name for each, name in found.items() if name is not None}
    with torch.no_grad():
        for owner in module.modules():
            for own, parameter in list(owner._parameters.items()):  # noqa: SLF001
                if parameter is not None and parameter.numel() <= _SMALL:
                    owner._parameters[own] = _checked(parameter, weights.read(kept[parameter]), kept[parameter])  # noqa: SLF001
        for name, buffer in module.named_buffers():
            if name in weights.files:
                buffer.copy_(weights.read(name))
    return module, {each: name for each, name in kept.items() if each.numel() > _SMALL}


def _stored(names: list[str], weights: Weights, prefix: str) -> str | None:
    """A parameter's name in the folder, None where it has none; names of a model and of its body differ by a prefix."""
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


def _checked(wanted: torch.nn.Parameter, found: torch.Tensor, name: str) -> torch.nn.Parameter:
    if found.shape != wanted.shape:
        raise ModelError(
            f"{name} is {list(found.shape)} in the folder, and {list(wanted.shape)} by its config.json",
            "save both again: model.save_pretrained(FOLDER)",
        )
    return torch.nn.Parameter(found, requires_grad=False)
