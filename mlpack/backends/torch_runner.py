"""Runs what takes and gives torch tensors by position: a module, a compiled one, a package of kernels."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from mlpack.backends.torch_modules import module_of
from mlpack.core.backend import spent
from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlpack.core.backend import Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Model

_PROFILED_RUNS = 5
# What torch raises where a call does not fit; errors of its compilers are RuntimeErrors too.
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError)


class TensorRunner:
    """Something callable on one device: tensors in the order of the model's inputs, a tuple in that of its outputs.

    `refused` makes an error of what the call raises, given what went in.
    """

    def __init__(
        self,
        call: Callable[..., Sequence[torch.Tensor]],
        model: Model,
        device: torch.device,
        refused: Callable[[Exception, str], StageFailed],
    ) -> None:
        self.call = call
        self._refused = refused
        self._inputs = tuple(spec.name for spec in model.inputs)
        self._outputs = model.outputs
        self._device = device
        self._given: tuple[torch.Tensor, ...] = ()
        self._made: Sequence[torch.Tensor] = ()
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
                self._made = self.call(*self._given)
            except REFUSALS as error:
                shapes = ", ".join(
                    f"{name} {list(given.shape)}" for name, given in zip(self._inputs, self._given, strict=True)
                )
                raise self._refused(error, shapes) from error
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


@contextmanager
def threads(options: BackendOptions) -> Iterator[None]:
    """Within it torch has exactly the threads that were asked for."""
    before = torch.get_num_threads()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def profiled(runner: TensorRunner, inputs: Mapping[str, np.ndarray], *, cuda: bool = False) -> tuple[Spent, ...]:
    """Self time by aten operator and by the marked module that called it; on CUDA self time of the device."""
    runner(inputs)
    runner.copy_in(inputs)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(_PROFILED_RUNS):
            runner.compute()
    found: dict[tuple[str, str], float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.name.startswith("aten::"):
            microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
            found[event.name, module_of(event)] += microseconds / 1000 / _PROFILED_RUNS
    return spent(found)


def one_line(error: BaseException) -> str:
    """What torch says of it, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
