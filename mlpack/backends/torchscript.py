"""The torchscript backend: frozen TorchScript archives, which need torch alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_runner import TensorRunner, profiled, threads
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target


class TorchScript:
    """An archive made by the trace stage. The user's code is not in it, and not needed."""

    name = "torchscript"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("torchscript",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Only the CPU, in the precision that was traced."""
        if options.device != "cpu" or target.kind == "cuda":
            return "it is traced for the CPU"
        if options.graph_optimizations == "off":
            return "it is frozen already"
        if options.precision != ("bfloat16" if model.numerics == "bf16" else "float32"):
            return f"it computes in {model.numerics}"
        return None

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The archive, with exactly the threads that were asked for.

        Raises:
            MissingHardware: it is for another device or precision.
            StageFailed: torch cannot read it.
        """
        if reason := self.refusal(model, target, options):
            raise MissingHardware(f"this TorchScript archive cannot run here: {reason}", "make it on this machine")
        with threads(options):
            try:
                script = torch.jit.load(str(model.entry_path), map_location="cpu")
            except RuntimeError as error:
                raise _refused(error, "loading") from error
            yield TensorRunner(script, model, torch.device("cpu"), _refused)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """By aten operator; which module called it is no longer known."""
        with self.open(model, target, options) as runner:
            assert isinstance(runner, TensorRunner)
            return profiled(runner, inputs)


def _refused(error: Exception, shapes: str) -> StageFailed:
    # Before it stands where in the archive, over many lines.
    *_, reason = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return StageFailed(
        f"this TorchScript archive fails on {shapes}: {reason}",
        "make it again with this version of torch: mlpack optimize MODEL --backend torchscript",
    )


BACKEND: Backend = TorchScript()
