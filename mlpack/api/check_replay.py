"""Golden samples through every door of a running server, by the code of the client that each package carries."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mlpack.api.checked import ComparedOutput, Problem, Replay
from mlpack.runtimes.templates.client import TIMEOUT_SECONDS, Failed, replay_raw, replay_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Literal

    from mlpack.core.runtime import Running
    from mlpack.runtimes.templates.client import Ask, Door, Golden, Output


def replays(golden: Golden, door: Door, server: Running) -> Iterator[Replay]:
    """One at a time and, where batch mates change nothing, together; then raw samples, where there are."""
    record = golden.record
    asking: dict[str, tuple[Ask, str]] = {"http": (door.ask, door.form)}
    if "grpc" in server.urls:
        asking["grpc"] = (_over_grpc(server.urls["grpc"]), "protobuf")
    for protocol, (ask, form) in asking.items():
        for rows in _sizes(golden):
            outputs = replay_tensors(ask, golden, rows)
            yield _replay(protocol, form, "tensors", rows, outputs, record["tolerance"])
    if "raw" in record:
        raw = record["raw"]
        # A column hides an output of its name from who sends raw samples.
        tolerance = {**record["tolerance"], **dict.fromkeys(raw["columns"], raw["tolerance"])}
        outputs = replay_raw(door, golden)
        yield _replay("http", door.form, "raw samples", record["rows_per_request"], outputs, tolerance, raw["columns"])


def _sizes(golden: Golden) -> list[int | None]:
    """Rows of a request: as recorded, and the most that the server takes at once and that part the samples evenly."""
    alone: int | None = golden.record["rows_per_request"]
    most = min(golden.record.get("most_rows") or 0, golden.samples)
    together = next((rows for rows in range(most, 1, -1) if golden.samples % rows == 0), alone)
    return [alone] if together == alone else [alone, together]


def _over_grpc(url: str) -> Ask:
    from mlpack.measure.clients import CLIENTS

    # The table says which extra is missing, where one is.
    CLIENTS["grpc"]
    from mlpack.measure.clients import client as clients
    from mlpack.measure.clients.v2_grpc import V2Grpc, arrays
    from mlpack.measure.load_drive import run

    def ask(model: str, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            async with V2Grpc(url, TIMEOUT_SECONDS) as client:
                return arrays(await client.send(client.request(model, inputs)))

        del outputs  # without a wish a V2 server sends them all
        try:
            return run(once)
        except (clients.Failed, ValueError) as error:
            raise Failed(str(error)) from error

    return ask


def _replay(
    protocol: str,
    form: str,
    sent: Literal["tensors", "raw samples"],
    rows: int | None,
    outputs: Iterable[Output],
    tolerance: Mapping[str, dict[str, float]],
    columns: Mapping[str, str] = MappingProxyType({}),
) -> Replay:
    by_name: dict[str, list[Output]] = {}
    failure = None
    try:
        for each in outputs:
            by_name.setdefault(each.name, []).append(each)
    except Failed as error:
        failure = str(error)
    return Replay(
        protocol=protocol,
        form=form,
        sent=sent,
        rows=rows,
        requests=max((each[-1].request for each in by_name.values()), default=0),
        outputs=tuple(
            _compared(name, found, tolerance[name], columns.get(name, "BYTES")) for name, found in by_name.items()
        ),
        failure=failure,
    )


def _compared(name: str, found: list[Output], allowed: dict[str, float], column: str) -> ComparedOutput:
    """All answers of one output; `column` is the datatype of one that the pipeline makes."""
    first = found[0].expected
    is_tensor = isinstance(first, np.ndarray)
    pairs = [
        (np.asarray(each.got, np.float64).ravel(), np.asarray(each.expected, np.float64).ravel())
        for each in found
        # A column may hold texts, truths or lists.
        if is_tensor or column == "FP32"
        if each.got is not None and np.size(each.got) == np.size(each.expected)
    ]
    return ComparedOutput(
        name=name,
        datatype=str(first.dtype) if is_tensor else column,
        shape=tuple(first.shape) if is_tensor else (len(first),),
        absolute=_largest([_apart(got, want) for got, want in pairs]),
        relative=_largest([_apart(got, want)[want != 0] / np.abs(want[want != 0]) for got, want in pairs]),
        allowed=allowed if is_tensor or column == "FP32" else None,
        problems=tuple(Problem(each.request, each.problem) for each in found if each.problem),
    )


def _apart(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """How far each value is off; NaN where a number should be is as far off as can be."""
    with np.errstate(invalid="ignore"):
        off = np.where(got == want, 0.0, np.abs(got - want))
    return np.nan_to_num(off, nan=np.inf, posinf=np.inf)


def _largest(parts: list[np.ndarray]) -> float | None:
    values = np.concatenate(parts) if parts else np.empty(0)
    return float(values.max()) if values.size else None
