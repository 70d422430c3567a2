"""The V2 inference protocol over gRPC, with tritonclient's generated stubs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from mlpack.errors import MachineError, UsageError
from mlpack.measure.clients.client import (
    DATATYPES,
    NAMES,
    Failed,
    Form,
    Served,
    TooLate,
    UnknownModel,
    input_spec,
    lacking,
    one_line,
)
from mlpack.measure.server_time import Spent

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUESTION_S = 10.0
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Without these two, channels share one connection, and a proxy of the environment answers for the server.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_NOT_SPOKEN = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


class _Line:
    """One connection and what can be called over it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.stub: Any = stubs.GRPCInferenceServiceStub(self.channel)


class V2Grpc:
    """A client of `grpc://host:port`. A request gets a free connection, or a new one where all are busy."""

    form: Form = "protobuf"

    def __init__(self, url: str, timeout_s: float) -> None:
        self._address = url.partition("://")[2].rstrip("/")
        self._timeout_s = timeout_s
        self._lines: list[_Line] = []
        self._free: list[_Line] = []

    async def __aenter__(self) -> Self:
        self._questions = self._new_line()
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in self._lines:
            await line.channel.close()

    async def server(self) -> str:
        """Name and version of the server."""
        try:
            told = await self._ask("ServerMetadata", messages.ServerMetadataRequest())
        except grpc.aio.AioRpcError as error:
            said = f"{error.code().name}: {one_line(error.details() or '')}"
            if error.code() in _NOT_SPOKEN:
                raise UsageError(
                    f"grpc://{self._address} answers, but not in the V2 inference protocol ({said})",
                    "give the gRPC address of a V2 server; for its HTTP port: --server http://HOST:PORT",
                ) from error
            raise MachineError(
                f"nothing answers gRPC at grpc://{self._address} ({said})",
                "start the server, or check host and port; for a HTTP port: --server http://HOST:PORT",
            ) from error
        return f"{told.name} {told.version}".strip()

    async def ready_models(self) -> tuple[str, ...] | None:
        """The names in the repository index; None where the server has none."""
        try:
            told = await self._ask("RepositoryIndex", messages.RepositoryIndexRequest(ready=True))
        except grpc.aio.AioRpcError:
            return None
        # MLServer writes State.READY.
        return tuple(dict.fromkeys(each.name for each in told.models if each.state.rpartition(".")[2] == "READY"))

    async def model(self, name: str) -> Served:
        """The model's metadata."""
        try:
            told = await self._ask("ModelMetadata", messages.ModelMetadataRequest(name=name))
        except grpc.aio.AioRpcError as error:
            raise UnknownModel(_message(error)) from error
        return Served(
            name=name,
            version=str(told.versions[-1]) if told.versions else "",
            inputs=tuple(input_spec(each.name, each.datatype, each.shape) for each in told.inputs),
            outputs=tuple(each.name for each in told.outputs),
        )

    def request(self, model: str, arrays: Mapping[str, np.ndarray]) -> Any:
        """The message, with its tensors as raw bytes."""
        tensors = [
            messages.ModelInferRequest.InferInputTensor(
                name=name, datatype=NAMES[array.dtype.name], shape=list(array.shape)
            )
            for name, array in arrays.items()
        ]
        raw = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
        return messages.ModelInferRequest(model_name=model, inputs=tensors, raw_input_contents=raw)

    async def send(self, request: Any) -> Any:
        """The answer's message."""
        line = self._free.pop() if self._free else self._new_line()
        try:
            return await line.stub.ModelInfer(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TooLate(f"no answer within {self._timeout_s:g} s") from error
            raise Failed(_message(error)) from error
        finally:
            self._free.append(line)

    def wrong(self, answer: Any, outputs: tuple[str, ...]) -> str | None:
        """What is wrong with the answer."""
        if answer.raw_output_contents:
            sizes = [len(raw) for raw in answer.raw_output_contents]
            sizes += [0] * (len(answer.outputs) - len(sizes))
        else:
            sizes = [each.contents.ByteSize() for each in answer.outputs]
        return lacking({each.name: size > 0 for each, size in zip(answer.outputs, sizes, strict=False)}, outputs)

    async def spent(self, model: str) -> Spent | None:
        """Triton's statistics of the model."""
        try:
            told = await self._ask("ModelStatistics", messages.ModelStatisticsRequest(name=model))
        except grpc.aio.AioRpcError:
            return None
        sums = [each.inference_stats for each in told.model_stats]
        if not sums:
            return None
        seconds = {
            "queue": sum(each.queue.ns for each in sums) / 1e9,
            "preprocess": sum(each.compute_input.ns for each in sums) / 1e9,
            "compute": sum(each.compute_infer.ns for each in sums) / 1e9,
            "postprocess": sum(each.compute_output.ns for each in sums) / 1e9,
        }
        return Spent("the server's statistics", sum(each.success.count for each in sums), seconds)

    def _new_line(self) -> _Line:
        line = _Line(self._address)
        self._lines.append(line)
        return line

    async def _ask(self, method: str, request: Any) -> Any:
        return await getattr(self._questions.stub, method)(request, timeout=_QUESTION_S)


def arrays(answer: Any) -> dict[str, np.ndarray]:
    """The outputs of an answer by name; a flat empty array where a shape came without values."""
    found = {}
    # Not strict: where no bytes came at all, no output did.
    for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=False):
        array = np.frombuffer(raw, DATATYPES[tensor.datatype])
        found[tensor.name] = array.reshape(tuple(tensor.shape)) if array.size else array
    return found


def _message(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {one_line(error.details() or '') or 'no message'}"
