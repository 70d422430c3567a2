"""Stands in for Triton's ONNX Runtime backend where only its Python backend is there: onnxruntime runs the file.

It shows that the configuration, the scheduler and the values are right, and nothing of that backend itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # exists inside Triton only

# What the backend makes of `optimization { graph { level } }`.
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel:
    """The name and the methods that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file that the configuration names, with its threads and its graph optimizations."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = ort.SessionOptions()
        threads = config["parameters"].get("intra_op_thread_count")
        if threads is not None:
            settings.intra_op_num_threads = int(threads["string_value"])
        settings.graph_optimization_level = _LEVELS[config["optimization"].get("graph", {}).get("level", 0)]
        path = str(folder / config["default_model_filename"])
        self._session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of a batch one by one."""
        return [self._answered(request) for request in requests]

    def _answered(self, request: Any) -> Any:
        given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        arrays = self._session.run(self._outputs, given)
        tensors = [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
