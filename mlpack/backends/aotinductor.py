"""The aotinductor backend: kernels that were compiled ahead of time, in a package that needs torch alone."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_runner import TensorRunner, one_line, threads
from mlpack.core.machine import isa
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

ISA = "mlpack_isa"
"""The package's own entry that says which instruction sets its kernels may use."""


# What torch._inductor.aoti_load_package ends in, called directly: that function first imports the whole compiler, which
# takes ten seconds and is not needed (docs/decisions/0027), and each call goes through its trees of arguments.
_LOADED = ("model", False, 1, -1)


class AotInductor:
    """A package made by the compile_ahead stage. The user's code is not in it, and not needed."""

    name = "aotinductor"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("aotinductor",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Only what the package was compiled for: a CPU with its instruction sets, its precision."""
        if options.device != "cpu" or target.kind == "cuda":
            return "its kernels are compiled for the CPU"
        if options.graph_optimizations == "off":
            return "its kernels are compiled already"
        if options.precision != ("bfloat16" if model.numerics == "bf16" else "float32"):
            return f"its kernels compute in {model.numerics}"
        lacking = [name for name in _instruction_sets(model) if name not in isa()]
        return f"it is compiled for a CPU with {' '.join(lacking)}" if lacking else None

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The package's kernels, with exactly the threads that were asked for.

        Raises:
            MissingHardware: it is compiled for another CPU.
            StageFailed: torch cannot read it.
        """
        if reason := self.refusal(model, target, options):
            raise MissingHardware(f"this AOTInductor package cannot run here: {reason}", "make it on this machine")
        with threads(options):
            try:
                package = torch._C._aoti.AOTIModelPackageLoader(str(model.entry_path), *_LOADED)  # noqa: SLF001 - see above
            except RuntimeError as error:
                raise _refused(error, "loading") from error
            yield TensorRunner(_Checked(package, model), model, torch.device("cpu"), _refused)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Nothing: compiled kernels have no names that the profiler sees, and what lies between them would mislead."""
        del model, target, options, inputs
        return ()


class _Checked:
    """A package's kernels trust what they are given: without a check they read beyond a tensor that is too small."""

    def __init__(self, package: torch._C._aoti.AOTIModelPackageLoader, model: Model) -> None:
        self._run = package.run
        self._inputs = tuple((spec, getattr(torch, spec.dtype)) for spec in model.inputs)

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        sizes: dict[int | str, int] = {}
        for (spec, dtype), tensor in zip(self._inputs, tensors, strict=True):
            fits = tensor.dtype is dtype and tensor.dim() == len(spec.dims)
            for dim, size in zip(spec.dims, tensor.shape, strict=False):
                fits &= size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
            if not fits:
                raise ValueError(f"it takes {spec}")
        made: list[torch.Tensor] = self._run(list(tensors))
        return made


def _instruction_sets(model: Model) -> tuple[str, ...]:
    """Those that the package says it was compiled for; none where it is no package: opening it will say so."""
    import json

    try:
        with zipfile.ZipFile(model.entry_path) as package:
            found = [json.loads(package.read(name)) for name in package.namelist() if name.endswith("metadata.json")]
    except zipfile.BadZipFile:
        return ()
    return tuple(dict.fromkeys(word for each in found for word in each.get(ISA, "").split()))


def _refused(error: Exception, shapes: str) -> StageFailed:
    return StageFailed(
        f"this AOTInductor package fails on {shapes}: {one_line(error)}",
        "make it again with this version of torch: mlpack optimize MODEL --backend aotinductor",
    )


BACKEND: Backend = AotInductor()
