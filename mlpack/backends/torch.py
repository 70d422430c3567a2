"""The torch backend: runs what the user handed in, eagerly. The baseline of every comparison."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from mlpack.backends.torch_loader import Flat, load_exported, load_inner, load_module
from mlpack.backends.torch_modules import marked_modules, module_of
from mlpack.core.backend import spent
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

__all__ = ["BACKEND", "Flat", "load_exported", "load_inner", "load_module"]


class _ModuleRunner:
    """One module on one device; outputs by the names in the model."""

    def __init__(self, module: Flat, model: Model, device: torch.device) -> None:
        self.module = module.to(device)
        self._inputs = tuple(spec.name for spec in model.inputs)
        self._outputs = model.outputs
        self._device = device
        self._given: tuple[torch.Tensor, ...] = ()
        self._made: tuple[torch.Tensor, ...] = ()
        self._events = _events() if device.type == "cuda" else None

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.copy_in(inputs)
        self.compute()
        return self.copy_out()

    def copy_in(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._given = tuple(to_tensor(inputs[name]).to(self._device) for name in self._inputs)

    def compute(self) -> None:
        if self._events is not None:
            self._events[0].record()
        with torch.inference_mode():
            try:
                self._made = self.module(*self._given)
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
                shapes = ", ".join(
                    f"{name} {list(given.shape)}" for name, given in zip(self._inputs, self._given, strict=True)
                )
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                raise StageFailed(
                    f"the torch module fails on {shapes}: {reason}",
                    "check that the data is what it was trained on",
                ) from error
        if self._events is not None:
            self._events[1].record()
            torch.cuda.synchronize(self._device)

    def copy_out(self) -> dict[str, np.ndarray]:
        return {spec.name: to_numpy(made) for spec, made in zip(self._outputs, self._made, strict=True)}

    def device_ms(self) -> float | None:
        return None if self._events is None else float(self._events[0].elapsed_time(self._events[1]))


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Marks on the device's own time line: what lies between them was computed, not waited for."""
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor that shares its memory where it can (numpy has no bfloat16 of its own)."""
    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    # A read-only array (a slice of a memory map) is copied: torch would warn that writing to it is undefined.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array on the CPU."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        tensor = tensor.view(torch.uint16)
        return np.asarray(tensor.numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


class Torch:
    """PyTorch, eager: the module the user would run."""

    name = "torch"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("torch",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Only a CUDA device that is not there, or a precision other than the module's own."""
        del model, target
        if options.device == "cuda" and not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if options.precision != "float32":
            return "it runs the module as it is, in its own precision"
        return None

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The module in eval mode under inference mode, with exactly the threads that were asked for.

        Raises:
            MissingHardware: no CUDA device.
            ModelError: the user's code raises, or the weights do not fit.
        """
        del target
        device = _device(options)
        before = torch.get_num_threads()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        try:
            yield _ModuleRunner(load_module(model), model, device)
        finally:
            torch.set_num_threads(before)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """By aten operator and by the module that called it: self CPU time (self device time on CUDA)."""
        cuda = options.device == "cuda"
        with self.open(model, target, options) as runner:
            assert isinstance(runner, _ModuleRunner)
            runner(inputs)
            runner.copy_in(inputs)
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
            with marked_modules(runner.module), profile(activities=activities) as profiler:
                for _ in range(_PROFILED_RUNS):
                    runner.compute()
        found: dict[tuple[str, str], float] = defaultdict(float)
        for event in profiler.events() or ():
            if event.name.startswith("aten::"):
                microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
                found[event.name, module_of(event)] += microseconds / 1000 / _PROFILED_RUNS
        return spent(found)


_PROFILED_RUNS = 5


def _device(options: BackendOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise MissingHardware(
            "torch sees no CUDA device on this machine",
            "mlpack doctor shows what is missing; choose a CPU target to run here",
        )
    return torch.device(options.device)


BACKEND: Backend = Torch()
