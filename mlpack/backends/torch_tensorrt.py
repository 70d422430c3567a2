"""The torch_tensorrt backend: the user's module under torch.compile, by TensorRT where it can, compiled anew."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_device import placed, refusal_to_place
from mlpack.backends.torch_runner import TensorRunner, one_line, threads
from mlpack.core.installation import DISTRIBUTION, installed_version, unmet
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

_LIBRARY = "torch-tensorrt"
_INSTALL = f"in an environment of its own: pip install '{DISTRIBUTION}[torch-tensorrt]'"


class TorchTensorRt:
    """Torch-TensorRT's backend of torch.compile. What it has no converter for stays with torch, as users have it."""

    name = "torch_tensorrt"
    libraries: tuple[str, ...] = ("torch", _LIBRARY)
    formats: tuple[Format, ...] = ("torch",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """All but a CUDA device that is there, with versions that go together."""
        del target
        if options.device != "cuda":
            return "TensorRT compiles for a CUDA device"
        if (error := lacking()) is not None:
            return error.message
        return refusal_to_place(model, options)

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The module on the device, to be compiled at the first call of each shape.

        An engine that cannot be built is an error here; by itself the library would run that part in torch. TF32 is
        off: float32 was promised.

        Raises:
            MissingLibrary: it is not installed, or with versions of torch and TensorRT that it is not for.
            MissingHardware: no CUDA device, or it was not asked for.
            ModelError: the user's code raises, or the weights do not fit.
        """
        if options.device == "cuda" and (error := lacking()) is not None:
            raise error
        if reason := self.refusal(model, target, options):
            raise MissingHardware(f"Torch-TensorRT cannot run this: {reason}", "try --backend torch")
        try:
            importlib.import_module("torch_tensorrt")
        except (ImportError, OSError) as refused:
            raise MissingLibrary(f"Torch-TensorRT does not load: {one_line(refused)}", _INSTALL) from refused
        told = {"disable_tf32": True, "use_explicit_typing": True, "pass_through_build_failures": True}
        with threads(options):
            compiled = torch.compile(placed(model, options), backend="torch_tensorrt", dynamic=False, options=told)
            yield TensorRunner(compiled, model, torch.device("cuda"), _refused)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Nothing: an engine's layers are fused across the operators and modules that they would be told by."""
        del model, target, options, inputs
        return ()


def lacking() -> MissingLibrary | None:
    """Why it cannot be used, or None; asked of what is installed: importing it beside another torch crashes."""
    version = installed_version(_LIBRARY)
    if version is None:
        return MissingLibrary("Torch-TensorRT is not installed", _INSTALL)
    if wrong := unmet(_LIBRARY):
        return MissingLibrary(f"Torch-TensorRT {version} wants {', '.join(wrong)}", _INSTALL)
    return None


def _refused(error: Exception, shapes: str) -> StageFailed:
    return StageFailed(
        f"Torch-TensorRT refuses this model on {shapes}: {one_line(error)}",
        "build an engine of its ONNX graph (--backend tensorrt), or run it as it is: --backend torch",
    )


BACKEND: Backend = TorchTensorRt()
