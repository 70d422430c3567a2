"""Stands in for Triton's OpenVINO backend where only its Python backend is there: openvino runs the file.

It takes that backend's parameters, and shows that the configuration, the scheduler and the values are right. It shows
nothing of that backend itself: batches are not filled up, and float32 stays float32 on every CPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Its import reports to Google Analytics, unless this package of Intel's cannot be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: "there is no such module"

import openvino as ov  # noqa: E402 - after the line above
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # noqa: E402 - exists inside Triton only

# As the backend's own README has them; another one is none.
_TAKEN = {"PERFORMANCE_HINT", "INFERENCE_NUM_THREADS", "NUM_STREAMS", "HINT_BF16", "ENABLE_BATCH_PADDING"}


class TritonPythonModel:
    """The name and the methods that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file that the configuration names, with its parameters."""
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        if unknown := given.keys() - _TAKEN:
            raise pb_utils.TritonModelException(f"the OpenVINO backend has no parameter {', '.join(sorted(unknown))}")
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": given["PERFORMANCE_HINT"],
            "INFERENCE_NUM_THREADS": int(given["INFERENCE_NUM_THREADS"]),
            "NUM_STREAMS": int(given["NUM_STREAMS"]),
            "INFERENCE_PRECISION_HINT": ov.Type.bf16 if given.get("HINT_BF16") == "YES" else ov.Type.f32,
        }
        folder = Path(args["model_repository"]) / args["model_version"]
        compiled = ov.Core().compile_model(str(folder / config["default_model_filename"]), "CPU", properties)
        self._request = compiled.create_infer_request()
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = [each["name"] for each in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of a batch one by one."""
        return [self._answered(request) for request in requests]

    def _answered(self, request: Any) -> Any:
        given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        self._request.infer(given)
        tensors = [pb_utils.Tensor(name, self._request.get_tensor(name).data.copy()) for name in self._outputs]
        return pb_utils.InferenceResponse(output_tensors=tensors)
