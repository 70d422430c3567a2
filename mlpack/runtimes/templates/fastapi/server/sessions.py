"""Opens the model with the backend and the options that it was measured with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from .description import Description

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
Session = Callable[[Mapping[str, np.ndarray[Any, np.dtype[Any]]]], Arrays]


class ModelFailed(Exception):
    """The backend refused to load the model or to run it on these inputs."""


@dataclass(frozen=True)
class Model:
    """What one worker runs: the first session (None: it could not be opened), and a spare for what that fails on."""

    first: Session | None
    spare: Session | None = None

    @property
    def session(self) -> Session:
        """The one that is asked before the other."""
        session = self.first or self.spare
        assert session is not None
        return session


def open_session(package: Path, description: Description) -> Session:
    """A function from inputs to outputs, both by name. One caller at a time.

    Raises:
        ModelFailed: the backend refuses the model or these options.
    """
    return _OPENERS[description.backend](package / description.entry, description)


def _open_onnxruntime(model: Path, description: Description) -> Session:
    # Since 1.29 it reports sessions to its makers unless this is set before it is loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    refusals = (
        state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented,
        state.RuntimeException,
    )  # fmt: skip
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = description.options.threads
    settings.inter_op_num_threads = 1
    if description.options.waiting == "sleep":
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its log repeats what the exceptions say.
    settings.log_severity_level = 4
    levels = ort.GraphOptimizationLevel
    wanted = {"all": levels.ORT_ENABLE_ALL, "off": levels.ORT_DISABLE_ALL}
    settings.graph_optimization_level = wanted[description.options.graph_optimizations]
    try:
        session = ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise ModelFailed(_first_line(error)) from error
    names = [tensor.name for tensor in description.outputs]

    def run(inputs: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> Arrays:
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except refusals as error:
            raise ModelFailed(_first_line(error)) from error

    return run


def _open_openvino(model: Path, description: Description) -> Session:
    # Its import reports to Google Analytics, unless this package of Intel's cannot be had.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: "there is no such module"
    import openvino as ov

    # On CPUs with bfloat16 OpenVINO would run float graphs in bfloat16 unless it is told the precision.
    precision = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[description.options.precision]
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": description.options.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    try:
        compiled = ov.Core().compile_model(str(model), "CPU", properties)
    except RuntimeError as error:
        raise ModelFailed(_first_line(error)) from error
    executed = compiled.get_property("INFERENCE_PRECISION_HINT")
    if executed != precision:
        raise ModelFailed(f"this CPU would run it in {executed}, not in {description.options.precision}")
    request = compiled.create_infer_request()
    names = [tensor.name for tensor in description.outputs]

    def run(inputs: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> Arrays:
        try:
            request.infer({name: np.ascontiguousarray(array) for name, array in inputs.items()})
        except RuntimeError as error:
            raise ModelFailed(_first_line(error)) from error
        # The request reuses its output memory in the next run: each answer needs a copy of its own.
        return {name: np.array(request.get_tensor(name).data) for name in names}

    return run


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


_OPENERS: dict[str, Callable[[Path, Description], Session]] = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}
