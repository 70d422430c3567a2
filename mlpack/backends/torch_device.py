"""Puts a module on the device and into the precision that it is to run in; says why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.export.passes import move_to_device_pass

from mlpack.backends.torch_loader import Exported, load_module
from mlpack.core.loader import Loader

if TYPE_CHECKING:
    from mlpack.backends.torch_loader import Flat
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Model

# What they compute in is written in their operators, not only in their weights.
_TYPED = {"exported_program": "an exported program", "torchscript": "a TorchScript archive"}


def refusal_to_place(model: Model, options: BackendOptions) -> str | None:
    """Why this module cannot run on that device in that precision, or None."""
    if options.device == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if model.on_disk and (options.device, options.precision) != ("cpu", "float32"):
        return "its weights are read from the disk in float32, for the CPU"
    kind = Loader.read(model.path).kind
    if options.precision != "float32" and kind in _TYPED:
        return f"{_TYPED[kind]} keeps the precision that it was made in"
    return None


def placed(model: Model, options: BackendOptions) -> Flat:
    """The module on its device; in half precision its weights, products and sums are narrowed, as by `.half()`.

    Floats that go in are narrowed, and those that come out are float32 again.

    Raises:
        ModelError: the user's code raises, or the weights do not fit it.
    """
    flat = load_module(model)
    if isinstance(flat.inner, Exported) and options.device != "cpu":
        # Its operators also name the device that they make tensors on.
        flat.inner = Exported(move_to_device_pass(flat.inner.program, options.device))
    if not model.on_disk:
        flat.to(torch.device(options.device))
    if options.precision != "float32":
        _narrow(flat, getattr(torch, options.precision))
    return flat


def _narrow(flat: Flat, dtype: torch.dtype) -> None:
    """By hooks, so that it is the user's module all the same, with its names."""

    def entering(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(each.to(dtype) if each.is_floating_point() else each for each in given)

    def leaving(_: Any, __: Any, made: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(each.float() if each.dtype is dtype else each for each in made)

    flat.inner.to(dtype)
    flat.register_forward_pre_hook(entering)
    flat.register_forward_hook(leaving)
