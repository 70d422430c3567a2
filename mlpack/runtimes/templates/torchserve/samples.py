"""Raw samples in a worker: to the model's inputs and from its outputs to columns, by the artifact's own pipeline."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from v2.description import Description
    from v2.protocol import InferRequest
    from v2.sessions import Arrays


class BadSample(Exception):
    """A raw sample that the pipeline cannot take; the message says which and why."""


class AnswerFailed(Exception):
    """The pipeline cannot make an answer of the model's outputs."""


class Samples:
    """The pipeline of one worker, which asks it for one request after the other."""

    def __init__(self, folder: Path, description: Description) -> None:
        # The model's threads were measured; a tokenizer with as many as there are CPUs would get in their way.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # Lies in the archive, beside the modules of the protocol.
        code = import_module("v2.pipeline")
        self._error: type[Exception] = code.PipelineError
        self._packed = code.packed
        self._pipeline = code.Pipeline.load(folder / "pipeline")
        self._description = description

    def prepared(self, request: InferRequest) -> InferRequest:
        """The request with the model's inputs.

        Raises:
            BadSample: one cannot be taken.
        """
        try:
            return replace(request, inputs=self._pipeline.prepare(request.samples))
        except self._error as error:
            row = getattr(error, "row", None)
            several = len(next(iter(request.samples.values()))) > 1
            raise BadSample(f"sample {row + 1}: {error}" if several and row is not None else str(error)) from error

    def columns(self, request: InferRequest, outputs: Arrays) -> dict[str, list[Any]]:
        """What the request asks for beside the model's own outputs, as tensors of the promised datatypes.

        Raises:
            AnswerFailed: the outputs are not what the pipeline was made for.
        """
        if not request.columns:
            return {}
        raw = self._description.raw
        assert raw is not None
        try:
            found = self._pipeline.finish(outputs, request.samples)
            return {name: self._packed(name, raw.columns[name], values) for name, values in found.items()}
        except self._error as error:
            raise AnswerFailed(str(error)) from error
