"""The torch backend: runs what the user handed in, eagerly. The baseline of every comparison."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_device import placed, refusal_to_place
from mlpack.backends.torch_loader import Flat, load_exported, load_inner, load_module
from mlpack.backends.torch_modules import marked_modules
from mlpack.backends.torch_runner import TensorRunner, one_line, profiled, threads
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

__all__ = ["BACKEND", "Flat", "load_exported", "load_inner", "load_module"]


class Torch:
    """PyTorch, eager: the module the user would run."""

    name = "torch"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("torch",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Only a CUDA device that is not there, or a precision that the module cannot be put in."""
        del target
        return refusal_to_place(model, options)

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The module in eval mode under inference mode, on the device, with exactly the threads that were asked for.

        Raises:
            MissingHardware: no CUDA device, or not in that precision.
            ModelError: the user's code raises, or the weights do not fit.
        """
        if reason := self.refusal(model, target, options):
            raise MissingHardware(
                f"torch cannot run this here: {reason}",
                "mlpack doctor shows what is missing; choose a CPU target to run here",
            )
        with threads(options):
            yield TensorRunner(placed(model, options), model, torch.device(options.device), failed)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """By aten operator and by the module that called it: self CPU time (self device time on CUDA)."""
        with self.open(model, target, options) as runner:
            assert isinstance(runner, TensorRunner)
            assert isinstance(runner.call, Flat)
            with marked_modules(runner.call):
                return profiled(runner, inputs, cuda=options.device == "cuda")


def failed(error: Exception, shapes: str) -> StageFailed:
    """The module raised on inputs of these shapes."""
    return StageFailed(
        f"the torch module fails on {shapes}: {one_line(error)}", "check that the data is what it was trained on"
    )


BACKEND: Backend = Torch()
