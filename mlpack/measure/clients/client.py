"""What a load generator needs of a server, whatever its protocol is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from mlpack.core.model import TensorSpec
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from mlpack.measure.server_time import Spent

Form = Literal["json", "binary", "protobuf"]

DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
"""The V2 protocol's names of the numpy dtypes that can be sent."""
NAMES = {dtype: name for name, dtype in DATATYPES.items()}


class Failed(Exception):
    """A request got no good answer; says in one line why, as the server put it where it said anything."""


class TooLate(Failed):
    """No answer within the time that a request may take."""


class UnknownModel(Exception):
    """The server has no model of this name, or cannot run it now."""


@dataclass(frozen=True)
class Served:
    """What a server says about a model. No inputs or outputs where it says nothing about them."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]


class Client(Protocol):
    """Speaks one protocol to one server, inside `async with`. `form` says how tensors are written."""

    form: Form

    def __init__(self, url: str, timeout_s: float) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def server(self) -> str:
        """Name and version of the server; to be asked first.

        Raises:
            MachineError: nothing answers there.
            UsageError: what answers does not speak this protocol.
        """
        ...

    async def ready_models(self) -> tuple[str, ...] | None:
        """The models that can be asked; None where the server does not list its models."""
        ...

    async def model(self, name: str) -> Served:
        """What the server says about a model.

        Raises:
            UnknownModel: it has none of this name.
            UsageError: the model takes something else than numbers.
        """
        ...

    def request(self, model: str, arrays: Mapping[str, np.ndarray]) -> Any:
        """A request that is ready to be sent, so that writing it costs nothing while time is taken."""
        ...

    async def send(self, request: Any) -> Any:
        """The whole answer, unread.

        Raises:
            Failed: an error status, no answer in time, a broken connection.
        """
        ...

    def wrong(self, answer: Any, outputs: tuple[str, ...]) -> str | None:
        """What is wrong with an answer that should have these outputs; None where nothing is."""
        ...

    async def spent(self, model: str) -> Spent | None:
        """What the server has added up about this model so far; None where it has no such statistics."""
        ...


def input_spec(name: str, datatype: str, shape: Iterable[int]) -> TensorSpec:
    """An input of the server's metadata as a spec: free dims get names of their own.

    Raises:
        UsageError: it is not made of numbers that numpy has.
    """
    if datatype not in DATATYPES:
        raise UsageError(
            f"the model's input {name!r} is {datatype}: bench sends numbers only", f"known: {', '.join(DATATYPES)}"
        )
    dims = tuple(int(dim) if int(dim) >= 0 else f"{name}.{place}" for place, dim in enumerate(shape))
    return TensorSpec(name=name, dtype=DATATYPES[datatype], dims=dims)


def lacking(found: Mapping[str, bool], outputs: tuple[str, ...]) -> str | None:
    """What an answer lacks: `found` says of each of its outputs whether it holds values."""
    for name in outputs:
        if name not in found:
            return f"the answer lacks the output {name!r}"
    for name, has_values in found.items():
        if not has_values:
            return f"the output {name!r} is empty"
    return None if found else "the answer has no outputs"


def one_line(text: str, most: int = 200) -> str:
    """The first line that says something, cut to a length that fits a table."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= most else f"{line[: most - 1]}…"
