"""Runs the ONNX file beside it with OpenVINO, told the precision and threads of config.pbtxt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Its import reports to Google Analytics, unless this package of Intel's cannot be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: "there is no such module"

import openvino as ov  # noqa: E402 - after the line above
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # noqa: E402 - exists inside Triton only


class TritonPythonModel:
    """The name and the three methods that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model. OpenVINO would choose bfloat16 by itself on some CPUs, so it is always told."""
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        precision = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[given["execution_precision"]]
        folder = Path(args["model_repository"]) / args["model_version"]
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": int(given["threads"]),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        compiled = ov.Core().compile_model(str(folder / given["model_filename"]), "CPU", properties)
        executed = compiled.get_property("INFERENCE_PRECISION_HINT")
        if executed != precision:
            raise pb_utils.TritonModelException(f"this CPU would run it in {executed}, not in {precision}")
        self._request = compiled.create_infer_request()
        self._batched = config["max_batch_size"] > 0
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = [each["name"] for each in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton's scheduler put together as one batch."""
        if not self._batched:
            return [self._responses(self._run([request]), [1])[0] for request in requests]
        first = self._inputs[0]
        rows = [pb_utils.get_input_tensor_by_name(each, first).as_numpy().shape[0] for each in requests]
        return self._responses(self._run(requests), rows)

    def _run(self, requests: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
        feeds = {}
        for name in self._inputs:
            parts = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            feeds[name] = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
        self._request.infer(feeds)
        # The request reuses its output memory in the next run.
        return {name: np.array(self._request.get_tensor(name).data) for name in self._outputs}

    def _responses(self, outputs: dict[str, np.ndarray[Any, Any]], rows: list[int]) -> list[Any]:
        responses = []
        first = 0
        for count in rows:
            part = slice(first, first + count) if self._batched else ...
            arrays = {name: np.ascontiguousarray(outputs[name][part]) for name in self._outputs}
            tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            first += count
        return responses
