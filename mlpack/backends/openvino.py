"""The openvino backend: runs the same ONNX file on the CPU, in exactly the precision that it is told."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

# Its import makes a client id and reports to Google Analytics, unless this package of Intel's cannot be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: "there is no such module"

import openvino as ov  # noqa: E402 - after the line above

from mlpack.core.backend import spent  # noqa: E402 - likewise
from mlpack.errors import MissingHardware, StageFailed  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

_PRECISIONS = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}
_CAPABILITY = {"float32": "FP32", "bfloat16": "BF16"}
_PROFILED_RUNS = 5


class _RequestRunner:
    """One infer request of one compiled model."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = [(output.get_any_name(), output) for output in compiled.outputs]
        self._tensors: dict[str, ov.Tensor] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.copy_in(inputs)
        self.compute()
        return self.copy_out()

    def copy_in(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._tensors = {
            name: ov.Tensor(np.ascontiguousarray(array), shared_memory=False) for name, array in inputs.items()
        }
        try:
            for name, tensor in self._tensors.items():
                self._request.set_tensor(name, tensor)
        except RuntimeError as error:
            raise _refused(error) from error

    def compute(self) -> None:
        try:
            self._request.infer()
        except RuntimeError as error:
            raise _refused(error) from error

    def copy_out(self) -> dict[str, np.ndarray]:
        return {name: np.array(self._request.get_tensor(output).data) for name, output in self._outputs}

    def device_ms(self) -> float | None:
        return None


class OpenVino:
    """OpenVINO's CPU plug-in. By default it runs fp32 graphs in bf16 on some CPUs: here it is always told."""

    name = "openvino"
    libraries: tuple[str, ...] = ("openvino",)
    formats: tuple[Format, ...] = ("onnx",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """The CPU alone, Q/DQ only as it fuses it, only precisions that the CPU reports, and what it can hold."""
        if model.on_disk:
            return "its weights stay on the disk, and it holds all of them"
        if options.device != "cpu" or target.kind == "cuda":
            return "only its CPU plug-in is driven here"
        if options.graph_optimizations == "off":
            return "it cannot run Q/DQ literally"
        if options.precision not in _PRECISIONS:
            return f"it is not driven in {options.precision} here"
        if _CAPABILITY[options.precision] not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return f"this CPU has no {options.precision}"
        return None

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """Compile for latency, one stream, the precision set and read back.

        Raises:
            MissingHardware: this CPU does not execute that precision.
            StageFailed: the library refuses the model.
        """
        refusal = self.refusal(model, target, options)
        if refusal:
            raise MissingHardware(f"openvino cannot run this: {refusal}", "try --backend onnxruntime")
        yield _RequestRunner(_compiled(model, options, profiling=False))

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """By operator type and module, from the library's own counters; its node names carry the module's path."""
        del target
        compiled = _compiled(model, options, profiling=True)
        request = compiled.create_infer_request()
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        request.infer(feeds)
        found: dict[tuple[str, str], float] = defaultdict(float)
        for _ in range(_PROFILED_RUNS):
            request.infer(feeds)
            for node in request.get_profiling_info():
                module, slash, _ = node.node_name.partition("/")
                found[node.node_type, module if slash else ""] += node.real_time.total_seconds() * 1000 / _PROFILED_RUNS
        return spent(found)


def _compiled(model: Model, options: BackendOptions, *, profiling: bool) -> ov.CompiledModel:
    precision = _PRECISIONS[options.precision]
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": options.threads or 1,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "PERF_COUNT": profiling,
    }
    try:
        compiled = ov.Core().compile_model(str(model.entry_path), "CPU", properties)
    except RuntimeError as error:
        raise _refused(error) from error
    executed = compiled.get_property("INFERENCE_PRECISION_HINT")
    if executed != precision:
        raise StageFailed(
            f"openvino would execute in {executed}, not in {options.precision}", "try --backend onnxruntime"
        )
    return compiled


def _refused(error: RuntimeError) -> StageFailed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return StageFailed(
        f"openvino refuses this model: {lines[-1] if lines else 'no reason given'}",
        "try another backend: --backend onnxruntime",
    )


BACKEND: Backend = OpenVino()
