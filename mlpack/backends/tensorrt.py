"""The tensorrt backend: a plan that was built by the build_engine stage, on an NVIDIA device."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mlpack.backends import tensorrt_library
from mlpack.backends.tensorrt_plan import Build, build_of
from mlpack.backends.torch_runner import TensorRunner, one_line
from mlpack.core.installation import torch_cuda
from mlpack.core.machine import nvidia_devices
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.machine import Device
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

_TYPES = {
    "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT8": torch.int8, "UINT8": torch.uint8,
    "INT32": torch.int32, "INT64": torch.int64, "BOOL": torch.bool,
}  # fmt: skip
_AMPERE = "8.0"


class TensorRt:
    """Engines of TensorRT and TensorRT-RTX; buffers, streams and events on the device are torch's."""

    name = "tensorrt"
    libraries: tuple[str, ...] = ("torch",)
    formats: tuple[Format, ...] = ("tensorrt",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Only on a card that the plan was built for, by a library of the version that built it."""
        del target
        devices = nvidia_devices()
        if not devices:
            return "there is no NVIDIA device"
        if torch_cuda() is None:
            return "this torch is a CPU build, and its CUDA build holds the buffers"
        if options.graph_optimizations == "off":
            return "an engine is compiled already"
        return _mismatch(build_of(model), devices[0])

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """Deserialize the plan and make one execution context.

        Raises:
            MissingHardware: there is no card that it runs on.
            StageFailed: the library cannot read it.
        """
        if reason := self.refusal(model, target, options):
            raise MissingHardware(
                f"this TensorRT engine cannot run here: {reason}", "build and run it on the card that it is for"
            )
        library = tensorrt_library.load(build_of(model).library)
        library.logger.lines.clear()
        runtime = library.module.Runtime(library.logger)
        engine = runtime.deserialize_cuda_engine(model.entry_path.read_bytes())
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise StageFailed(
                f"{library.title} cannot open this engine: {library.logger.complaint()}", "build it again on this card"
            )
        device = torch.device("cuda", 0)
        yield TensorRunner(_Engine(engine, context, model, device, library), model, device, _refused)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Nothing: an engine's layers are fused across the operators and modules that they would be told by."""
        del model, target, options, inputs
        return ()


class _Engine:
    """One execution context with its one optimization profile, on a stream of its own."""

    def __init__(self, engine: Any, context: Any, model: Model, device: torch.device, library: Any) -> None:
        self._engine, self._context, self._library, self._device = engine, context, library, device
        self._inputs = tuple((spec.name, self._type(spec.name)) for spec in model.inputs)
        self._outputs = tuple((spec.name, self._type(spec.name)) for spec in model.outputs)
        # On the default stream TensorRT synchronizes more often than it has to.
        self._stream = torch.cuda.Stream(device)

    def _type(self, name: str) -> torch.dtype:
        return _TYPES[self._engine.get_tensor_dtype(name).name]

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        given = [each.contiguous() for each in tensors]
        for (name, dtype), tensor in zip(self._inputs, given, strict=True):
            if tensor.dtype is not dtype:
                raise ValueError(f"{name} is {dtype}, not {tensor.dtype}")
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise ValueError(f"{name} is outside the shapes that the engine is built for")
            self._context.set_tensor_address(name, tensor.data_ptr())
        made = []
        for name, dtype in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise ValueError(f"the shape of {name} depends on the values of the inputs")
            made.append(torch.empty(shape, dtype=dtype, device=self._device))
            self._context.set_tensor_address(name, made[-1].data_ptr())
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError(self._library.logger.complaint())
        # What frees or reads the buffers is queued on the current stream, behind the engine.
        current.wait_stream(self._stream)
        return made


def _mismatch(build: Build, device: Device) -> str | None:
    """Why this plan does not run on this device with what is installed, or None."""
    if not _runs_on(build, device.compute_capability):
        return f"it is built for compute capability {build.compute_capability}, and {device.name} has another"
    if build.weights == "stripped":
        return "its weights are left out of the plan: build it with weights=constants to run it here"
    if (error := tensorrt_library.lacking(build.library)) is not None:
        return error.message
    version = tensorrt_library.version_of(build.library)
    if version != build.version and not build.version_compatible:
        return f"it is built by version {build.version}, and {version} is installed"
    return None


def _runs_on(build: Build, compute_capability: str | None) -> bool:
    if compute_capability is None:
        return False
    if build.hardware == "ampere_plus":
        return tuple(map(int, compute_capability.split("."))) >= tuple(map(int, _AMPERE.split(".")))
    return compute_capability == build.compute_capability


def _refused(error: Exception, shapes: str) -> StageFailed:
    return StageFailed(
        f"this TensorRT engine fails on {shapes}: {one_line(error)}",
        "give build_engine the batches that it is for: --set build_engine.batches=[1,8,32]",
    )


BACKEND: Backend = TensorRt()
