"""The torch_compile backend: the user's module under torch.compile, compiled anew in every process."""

from __future__ import annotations

import os
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_device import placed, refusal_to_place
from mlpack.backends.torch_runner import TensorRunner, one_line, threads
from mlpack.core.machine import NO_CPP_COMPILER, cpp_compiler
from mlpack.core.settings import COMPILED, load_settings
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

# Where Inductor keeps what it has compiled; without it that would be a folder of its own under /tmp.
_KEPT = "TORCHINDUCTOR_CACHE_DIR"


class TorchCompile:
    """torch.compile with its usual options: graph breaks run eagerly, shapes are compiled as they come."""

    name = "torch_compile"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("torch",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """A device or a compiler that is not there, or a precision that the module cannot be put in."""
        del target
        if model.on_disk:
            return "its weights stay on the disk, and what is compiled would hold them"
        lacking = _lacking(options)
        return refusal_to_place(model, options) if lacking is None else lacking[0]

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The module, to be compiled at the first call: what that takes is the price of a cold start.

        What was compiled is kept in mlpack's cache, where the next process finds it, unless the variable
        TORCHINDUCTOR_CACHE_DIR says otherwise.

        Raises:
            MissingHardware, MissingLibrary: no CUDA device, no compiler.
            ModelError: the user's code raises, or the weights do not fit.
            StageFailed: the compiler refuses the module.
        """
        if (lacking := _lacking(options)) is not None:
            raise MissingLibrary(*lacking)
        if reason := self.refusal(model, target, options):
            raise MissingHardware(f"torch.compile cannot run this: {reason}", "try --backend torch")
        os.environ.setdefault(_KEPT, str(load_settings(Path.cwd()).cache / COMPILED))
        module = placed(model, options)
        with threads(options):
            # The number of threads stands in the code: as an option it is in the key that the code is kept under.
            # Precompiled headers gain nothing here, and need openssl.
            told = {"cpp.threads": torch.get_num_threads(), "cpp_cache_precompile_headers": False}
            compiled = torch.compile(module, options=told)
            yield TensorRunner(compiled, model, torch.device(options.device), _refused)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Nothing: compiled kernels have no names that the profiler sees, and what lies between them would mislead."""
        del model, target, options, inputs
        return ()


def _lacking(options: BackendOptions) -> tuple[str, str] | None:
    """What compiling for the CPU needs and this machine lacks, and what to do about it."""
    if options.device != "cpu":
        return None
    if cpp_compiler() is None:
        return NO_CPP_COMPILER
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are not there (Python.h), which its kernels include", "apt-get install python3-dev"
    return None


def _refused(error: Exception, shapes: str) -> StageFailed:
    return StageFailed(
        f"torch.compile refuses this model on {shapes}: {one_line(error)}",
        "run it as it is, --backend torch, or exported, --backend onnxruntime",
    )


BACKEND: Backend = TorchCompile()
