"""Answers V2 requests in TorchServe: those that fit together run as one batch, and each is answered for itself."""

from __future__ import annotations

import gc
import json
from http import HTTPStatus
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from samples import AnswerFailed, BadSample, Samples
from script import open_script
from v2.answers import Result, build_response
from v2.description import check_files, read_description
from v2.faults import BadRequest, NoAnswer
from v2.protocol import read_content, tensor_request
from v2.raw_requests import is_raw, raw_request
from v2.sessions import ModelFailed, open_session
from working import Working

if TYPE_CHECKING:
    from collections.abc import Iterator

    from v2.protocol import InferRequest
    from v2.sessions import Arrays


class Handler:
    """The name of the class is free: TorchServe takes the only one that this file defines, and its two methods."""

    def initialize(self, context: Any) -> None:
        """Open the model as it was measured, unless a file of the archive is another one than was packaged."""
        folder = Path(context.system_properties["model_dir"])
        check_files(folder)
        self._description = read_description(folder)
        opened = open_script if self._description.backend == "torchscript" else open_session
        self._session = opened(folder, self._description)
        self._samples = Samples(folder, self._description) if self._description.raw else None
        self._working = Working()
        # A full collection would look at all that is loaded, and keep every request waiting: 130 ms in one server.
        gc.collect()
        gc.freeze()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """The answers to the requests that TorchServe has put together, in their order."""
        with self._working:
            return self._answers(data, context)

    def _answers(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        answers: dict[int, str] = {}
        requests: dict[int, InferRequest] = {}
        for place, each in enumerate(data):
            try:
                requests[place] = self._read(each)
            except BadRequest as error:
                answers[place] = _refused(context, place, HTTPStatus.BAD_REQUEST, error)
            except BadSample as error:
                answers[place] = _refused(context, place, HTTPStatus.UNPROCESSABLE_ENTITY, error)
        for batch in self._batches(requests):
            for place, found in zip(batch, self._outputs([requests[place] for place in batch]), strict=True):
                try:
                    if isinstance(found, ModelFailed):
                        raise found
                    answers[place] = self._written(requests[place], found)
                    context.set_response_content_type(place, "application/json")
                except (ModelFailed, NoAnswer) as error:
                    answers[place] = _refused(context, place, HTTPStatus.UNPROCESSABLE_ENTITY, error)
                except AnswerFailed as error:
                    answers[place] = _refused(context, place, HTTPStatus.INTERNAL_SERVER_ERROR, error)
        return [answers[place] for place in range(len(data))]

    def _read(self, each: dict[str, Any]) -> InferRequest:
        body = each.get("body", each.get("data"))
        # TorchServe has parsed what says that it is JSON, and decoded what says that it is text.
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, dict | bytes | bytearray | None):
            raise BadRequest("the body must be a JSON object")
        content = body if isinstance(body, dict) else read_content(bytes(body or b""))
        samples = self._samples if is_raw(content, self._description.raw) else None
        request = raw_request(content, self._description) if samples else tensor_request(content, self._description)
        if request.binary:
            raise BadRequest("this server answers in JSON only")
        return samples.prepared(request) if samples else request

    def _written(self, request: InferRequest, outputs: Arrays) -> str:
        columns = self._samples.columns(request, outputs) if self._samples else {}
        body: bytes = build_response(request, Result(outputs, columns), self._description).body
        return body.decode()

    def _batches(self, requests: dict[int, InferRequest]) -> Iterator[list[int]]:
        """Places of requests that fit in one run: alike but for their rows, and not too many of these."""
        limits = self._description.limits
        most = limits.max_rows if limits.batching == "merged" and limits.max_rows else 0
        waiting: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for place, request in requests.items():
            key = tuple(array.shape[1:] for array in request.inputs.values())
            batch = waiting.setdefault(key, [])
            if batch and sum(requests[each].rows for each in batch) + request.rows > most:
                yield waiting.pop(key)
                batch = waiting.setdefault(key, [])
            batch.append(place)
        yield from waiting.values()

    def _outputs(self, batch: list[InferRequest]) -> list[Arrays | ModelFailed]:
        """Of each request of a batch; one that the model fails on does not fail the others."""
        names = batch[0].inputs
        merged = {name: np.concatenate([each.inputs[name] for each in batch]) for name in names}
        try:
            found = self._session(batch[0].inputs if len(batch) == 1 else merged)
        except ModelFailed as error:
            return [error] if len(batch) == 1 else [self._outputs([each])[0] for each in batch]
        if len(batch) == 1:
            return [found]
        ends = list(accumulate(each.rows for each in batch))
        return [
            {name: array[end - each.rows : end] for name, array in found.items()}
            for end, each in zip(ends, batch, strict=True)
        ]


def _refused(context: Any, place: int, status: HTTPStatus, error: Exception) -> str:
    context.set_response_status(code=status.value, phrase=status.phrase, idx=place)
    return json.dumps({"error": str(error)})
