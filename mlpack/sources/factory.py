"""`package.module:function`: the user's code gives the module with its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.loader import Loader
from mlpack.core.user_code import load_function, running
from mlpack.core.weights import save_weights
from mlpack.errors import ModelError
from mlpack.sources.state_dict import WEIGHTS, copy_of_factory

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Detected, Source


class _Factory:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Call the factory once, keep the weights as safetensors and a copy of the user's file."""
        import torch

        del spec
        reference = detected.code
        function = load_function(reference, "factory", ModelError)
        with running(reference, f"factory {reference.text!r}", ModelError):
            module = function()
        if not isinstance(module, torch.nn.Module):
            raise ModelError(
                f"factory {reference.text!r} gave a {type(module).__name__}, not an nn.Module",
                "return the module",
            )
        state = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
        extra = sorted(set(module.state_dict()) - set(state))
        if extra:
            raise ModelError(f"{extra[0]!r} of the state dict is no tensor", "remove get_extra_state from the module")
        shared = save_weights(state, out / WEIGHTS)
        Loader(
            kind="factory",
            sha256=detected.sha256,
            weights=WEIGHTS,
            shared=shared,
            **copy_of_factory(reference, out),
        ).write(out)


SOURCE: Source = _Factory()
