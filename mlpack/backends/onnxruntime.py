"""The onnxruntime backend: ONNX files on the CPU, or on CUDA where it really is there."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from mlpack.backends.onnxruntime_pieces import PiecesRunner
from mlpack.backends.onnxruntime_providers import (
    CPU,
    RECORDED,
    keep_float32,
    nodes_by_provider,
    providers,
    wanted,
)
from mlpack.core.backend import spent
from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

_REFUSALS: tuple[type[Exception], ...] = (
    refusals.Fail,
    refusals.InvalidArgument,
    refusals.InvalidGraph,
    refusals.InvalidProtobuf,
    refusals.NotImplemented,
    refusals.RuntimeException,
    RuntimeError,  # what a bound run raises, as for a wrong shape
)
_PROFILED_RUNS = 5
_SPINNING = "session.intra_op.allow_spinning"
# What the library adds to the name of a result that it computes in blocks of channels (its layout NCHWc).
_BLOCKED = "_nchwc"
_NO_BF16 = "its CPU kernels have no bfloat16"
_NO_FP8 = "its CPU kernels have no fp8; a target that has it is simulated: --target h100"
_NO_PRECISION = "it executes a graph in the graph's own types, never in bfloat16 instead"


class _SessionRunner:
    """One session with its inputs and outputs bound, so that copies and compute can be timed apart."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self._binding = session.io_binding()
        self._device = device

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.copy_in(inputs)
        self.compute()
        return self.copy_out()

    def copy_in(self, inputs: Mapping[str, np.ndarray]) -> None:
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, self._device)

    def compute(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except _REFUSALS as error:
            raise _refused(error) from error

    def copy_out(self) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))

    def device_ms(self) -> float | None:
        return None


class OnnxRuntime:
    """ONNX Runtime, one session per opened model."""

    name = "onnxruntime"
    libraries: tuple[str, ...] = ("onnxruntime",)
    formats: tuple[Format, ...] = ("onnx",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Bfloat16 and fp8 have no CPU kernels here; a device that is absent is never replaced by another."""
        del target
        if options.device == "cpu" and model.numerics == "bf16":
            return _NO_BF16
        if options.device == "cpu" and model.numerics == "fp8" and options.graph_optimizations != "off":
            return _NO_FP8
        if options.precision != "float32":
            return _NO_PRECISION
        if wanted(options) not in ort.get_available_providers():
            return f"this build of onnxruntime has no {wanted(options)}"
        return None

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """One session with exactly the provider, threads and optimization level that were asked for.

        Weights that are too many for the memory are run in pieces, literally: what is fused would hold them twice.

        Raises:
            MissingHardware: the provider is not there.
            StageFailed: the library refuses the model.
        """
        del target
        if options.precision != "float32":
            raise _refused(ValueError(_NO_PRECISION))
        if model.on_disk:
            literal = options.model_copy(update={"graph_optimizations": "off"})
            yield PiecesRunner(model, partial(_settings, literal, profile_prefix=None), _refused)
        else:
            yield _SessionRunner(_session(model, options, profile_prefix=None), options.device)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """By operator type and module, from the library's own profiler; its node names carry the module's path."""
        del target
        with tempfile.TemporaryDirectory() as folder:
            session = _session(model, options, profile_prefix=str(Path(folder) / "profile"))
            feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
            for _ in range(1 + _PROFILED_RUNS):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
        modules = _modules_by_result(model)
        runs = [event for event in events if event["name"] == "model_run"]
        start = sorted(event["ts"] for event in runs)[1]
        found: dict[tuple[str, str], float] = defaultdict(float)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= start:
                name = event["name"].removesuffix("_kernel_time")
                # "fused X" is what the library calls X with its activation.
                module, slash, _ = name.removeprefix("fused ").partition("/")
                if not slash:
                    module = modules.get(name.removesuffix(_BLOCKED), "")
                found[event["args"]["op_name"], module] += event["dur"] / 1000 / _PROFILED_RUNS
        return spent(found)


def _modules_by_result(model: Model) -> dict[str, str]:
    """The module of each tensor's node: a convolution in blocked layout is named after its result, not its node."""
    import onnx

    nodes = onnx.load(model.entry_path, load_external_data=False).graph.node
    paths = [(node, node.name.partition("/")) for node in nodes]
    return {tensor: module for node, (module, slash, _) in paths if slash for tensor in node.output}


def _session(model: Model, options: BackendOptions, profile_prefix: str | None) -> ort.InferenceSession:
    computes = wanted(options)
    if computes not in ort.get_available_providers():
        raise MissingHardware(
            f"onnxruntime has no {computes} on this machine", "pip install onnxruntime-gpu, on a machine with a card"
        )
    settings = _settings(options, profile_prefix)
    try:
        session = ort.InferenceSession(str(model.entry_path), settings, providers=providers(model, options))
    except _REFUSALS as error:
        raise _refused(error) from error
    session.disable_fallback()
    if session.get_providers()[0] != computes:
        raise MissingHardware(
            f"onnxruntime fell back from {computes} to {session.get_providers()[0]}",
            "mlpack doctor shows the driver and library versions that are missing",
        )
    if computes != CPU and not nodes_by_provider(session)[computes]:
        raise StageFailed(
            f"onnxruntime gives no node of this graph to {computes}", "leave the provider out, or run it on the CPU"
        )
    return session


def _settings(options: BackendOptions, profile_prefix: str | None) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads or 1
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    settings.graph_optimization_level = (
        level.ORT_ENABLE_ALL if options.graph_optimizations == "all" else level.ORT_DISABLE_ALL
    )
    if options.waiting == "sleep":
        settings.add_session_config_entry(_SPINNING, "0")
    if profile_prefix is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile_prefix
    if wanted(options) != CPU:
        keep_float32(options)
        settings.add_session_config_entry(RECORDED, "1")
    return settings


def _refused(error: Exception) -> StageFailed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:2]) or type(error).__name__
    return StageFailed(f"onnxruntime refuses this model: {reason}", "try another backend: --backend openvino")


BACKEND: Backend = OnnxRuntime()
