"""One side of the pipeline beside it: raw samples to the model's inputs, or the model's outputs to columns."""

from __future__ import annotations

import base64
import binascii
import gc
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # exists inside Triton only

_DATATYPES = {"TYPE_STRING": "BYTES", "TYPE_FP32": "FP32", "TYPE_INT64": "INT64", "TYPE_BOOL": "BOOL"}
_DTYPES = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]+=*\s*")


class TritonPythonModel:
    """The name and the methods that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the pipeline; the parameter `side` of config.pbtxt says which half of it this is."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        import mlpack_pipeline  # type: ignore[import-not-found] # lies in that folder

        self._pipeline = mlpack_pipeline.Pipeline.load(folder / "pipeline")
        self._packed = mlpack_pipeline.packed
        self._error: type[Exception] = mlpack_pipeline.PipelineError
        self._work = {"prepare": self._prepare, "finish": self._finish}[config["parameters"]["side"]["string_value"]]
        self._batched = config["max_batch_size"] > 0
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = {each["name"]: each["data_type"] for each in config["output"]}
        # A full collection would look at all that is loaded, and keep every request waiting: 130 ms in one server.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: a sample that cannot be taken is nobody else's fault."""
        return [self._answered(request) for request in requests]

    def _answered(self, request: Any) -> Any:
        given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        try:
            raw = {name: self._samples(given.pop(name)) for name in self._pipeline.fields if name in given}
            arrays = self._work(given, raw)
        except (self._error, UnicodeDecodeError, binascii.Error) as error:
            row = getattr(error, "row", None)
            message = str(error) if row is None else f"sample {row + 1}: {error}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, arrays[name]) for name in self._outputs])

    def _prepare(self, _: dict[str, Any], raw: dict[str, list[Any]]) -> dict[str, Any]:
        prepared: dict[str, Any] = self._pipeline.prepare(raw)
        return prepared

    def _finish(self, outputs: dict[str, Any], raw: dict[str, list[Any]]) -> dict[str, Any]:
        arrays = {}
        for name, values in self._pipeline.finish(outputs, raw).items():
            datatype = _DATATYPES[self._outputs[name]]
            made = self._packed(name, datatype, values)
            if datatype == "BYTES":
                array = np.array([each.encode() for each in made], np.object_)
            else:
                array = np.array(made, _DTYPES[datatype])
            arrays[name] = array[:, None] if self._batched else array
        return arrays

    def _samples(self, array: np.ndarray[Any, Any]) -> list[Any]:
        """Texts, or the bytes of images.

        From a JSON request an image can only come as base64. No image file consists of base64's letters alone.
        """
        values = [bytes(each) for each in array.ravel()]
        if self._pipeline.preprocess.media == "text":
            return [each.decode() for each in values]
        return [base64.b64decode(each) if _BASE64.fullmatch(each) else each for each in values]
