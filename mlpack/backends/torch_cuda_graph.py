"""The torch_cuda_graph backend: the user's module, its kernels recorded once for each shape and launched as one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_device import placed, refusal_to_place
from mlpack.backends.torch_runner import TensorRunner, one_line, threads
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

    Shapes = tuple[tuple[torch.Size, torch.dtype], ...]

# Libraries choose kernels and make their workspaces in the first calls, which must not be recorded.
_WARM_UPS = 3
# Each holds the memory of one run: texts come in many lengths.
_MOST_GRAPHS = 16


class TorchCudaGraph:
    """CUDA graphs of the eager module: for small batches, where launching each kernel takes longer than running it."""

    name = "torch_cuda_graph"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("torch",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """All but a CUDA device that is there."""
        del target
        if options.device != "cuda":
            return "CUDA graphs are recorded on a CUDA device"
        return refusal_to_place(model, options)

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """The module on the device; a graph is recorded at the first call of each shape.

        Raises:
            MissingHardware: no CUDA device, or it was not asked for.
            ModelError: the user's code raises, or the weights do not fit.
        """
        if reason := self.refusal(model, target, options):
            raise MissingHardware(f"torch records no CUDA graph here: {reason}", "try --backend torch")
        device = torch.device("cuda")
        with threads(options):
            yield TensorRunner(_Recorded(placed(model, options), device), model, device, _refused)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Nothing: the kernels are launched as one, and no operator calls them."""
        del model, target, options, inputs
        return ()


class _Recorded:
    """A module's graphs by the shapes that go in; the oldest is forgotten where there are too many."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self._module, self._device = module, device
        self._graphs: dict[Shapes, _Graph] = {}

    def __call__(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        shapes = tuple((each.shape, each.dtype) for each in tensors)
        if shapes not in self._graphs:
            if len(self._graphs) == _MOST_GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[shapes] = _Graph(self._module, tensors, self._device)
        return self._graphs[shapes].replay(tensors)


class _Graph:
    """The kernels of one call with the buffers that they read and write: the same ones at each replay."""

    def __init__(self, module: torch.nn.Module, tensors: Sequence[torch.Tensor], device: torch.device) -> None:
        self._given = tuple(each.clone() for each in tensors)
        current, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                module(*self._given)
        current.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._made: Sequence[torch.Tensor] = module(*self._given)

    def replay(self, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Its own output buffers: the next replay writes over them."""
        for buffer, each in zip(self._given, tensors, strict=True):
            buffer.copy_(each, non_blocking=True)
        self._graph.replay()
        return self._made


def _refused(error: Exception, shapes: str) -> StageFailed:
    return StageFailed(
        f"this module cannot be recorded as a CUDA graph on {shapes}: {one_line(error)}",
        "nothing in forward() may wait for the device or depend on values; run it as it is: --backend torch",
    )


BACKEND: Backend = TorchCudaGraph()
