"""Runs the ONNX file beside it by the library that config.pbtxt names, told its threads and its other options."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # exists inside Triton only

if TYPE_CHECKING:
    from collections.abc import Callable

    Arrays = dict[str, np.ndarray[Any, Any]]


class TritonPythonModel:
    """The name and the three methods that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model."""
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        path = Path(args["model_repository"]) / args["model_version"] / given["model_filename"]
        self._batched = config["max_batch_size"] > 0
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = [each["name"] for each in config["output"]]
        self._call = _OPENERS[given["library"]](path, given, self._outputs)
        # A full collection would look at all that is loaded, and keep every request waiting: 130 ms in one server.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton's scheduler put together as one batch."""
        if not self._batched:
            return [self._responses(self._run([request]), [1])[0] for request in requests]
        first = self._inputs[0]
        rows = [pb_utils.get_input_tensor_by_name(each, first).as_numpy().shape[0] for each in requests]
        return self._responses(self._run(requests), rows)

    def _run(self, requests: list[Any]) -> Arrays:
        feeds = {}
        for name in self._inputs:
            parts = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            feeds[name] = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
        return self._call(feeds)

    def _responses(self, outputs: Arrays, rows: list[int]) -> list[Any]:
        responses = []
        first = 0
        for count in rows:
            part = slice(first, first + count) if self._batched else ...
            arrays = {name: np.ascontiguousarray(outputs[name][part]) for name in self._outputs}
            tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            first += count
        return responses


def _openvino(path: Path, given: dict[str, str], outputs: list[str]) -> Callable[[Arrays], Arrays]:
    """OpenVINO would choose bfloat16 by itself on some CPUs, so it is always told."""
    # Its import reports to Google Analytics, unless this package of Intel's cannot be had.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: "there is no such module"
    import openvino as ov

    precision = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[given["execution_precision"]]
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": int(given["threads"]),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = ov.Core().compile_model(str(path), "CPU", properties)
    executed = compiled.get_property("INFERENCE_PRECISION_HINT")
    if executed != precision:
        raise pb_utils.TritonModelException(f"this CPU would run it in {executed}, not in {precision}")
    request = compiled.create_infer_request()

    def call(feeds: Arrays) -> Arrays:
        request.infer(feeds)
        # The request reuses its output memory in the next run.
        return {name: np.array(request.get_tensor(name).data) for name in outputs}

    return call


def _onnxruntime(path: Path, given: dict[str, str], outputs: list[str]) -> Callable[[Arrays], Arrays]:
    # It reports sessions to its makers unless this is set before it is loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = int(given["threads"])
    settings.inter_op_num_threads = 1
    if given["waiting"] == "sleep":
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = ort.GraphOptimizationLevel
    wanted = {"all": levels.ORT_ENABLE_ALL, "off": levels.ORT_DISABLE_ALL}
    settings.graph_optimization_level = wanted[given["graph_optimizations"]]
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda feeds: dict(zip(outputs, session.run(outputs, feeds), strict=True))


_OPENERS = {"openvino": _openvino, "onnxruntime": _onnxruntime}
