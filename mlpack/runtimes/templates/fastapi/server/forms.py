"""The two ways to ask: the V2 protocol, and a plain door for people. Each reads a request and writes its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .answering import Form
from .answers import Result, Written, build_response
from .media import check_plain, check_protocol, media_type
from .protocol import InferRequest, read_content, tensor_request
from .raw_requests import is_raw, plain_request, plain_response, raw_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .description import Description
    from .pipelines import Pipelines


def protocol_form(description: Description, pipelines: Pipelines | None) -> Form:
    """Tensors, or raw samples in BYTES tensors, in JSON or as bytes."""

    def read(body: bytes, headers: Mapping[str, str]) -> InferRequest:
        check_protocol(headers)
        content = read_content(body, headers)
        wanted = raw_request if is_raw(content, description.raw) else tensor_request
        return wanted(content, description)

    def write(request: InferRequest, result: Result) -> Written:
        packed = pipelines.packed({**result.columns}) if pipelines else {}
        return build_response(request, replace(result, columns=packed), description)

    return Form(read, write)


def plain_form(description: Description) -> Form:
    """Fields of raw samples as JSON, or an image file."""

    def read(body: bytes, headers: Mapping[str, str]) -> InferRequest:
        check_plain(headers)
        return plain_request(body, media_type(headers), description)

    def write(request: InferRequest, result: Result) -> Written:
        return Written(plain_response(request, result.outputs, result.columns))

    return Form(read, write)
