"""What `check` found of a package: each output held to the recorded one, and how long its server took."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlpack.core.summary import Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.summary import Part
    from mlpack.measure.load import Load


@dataclass(frozen=True)
class Problem:
    """What is wrong with an output in the answer to one request, counted from 1."""

    request: int
    said: str


@dataclass(frozen=True)
class ComparedOutput:
    """An output over all requests of a replay: its largest differences from what is recorded, and what is allowed.

    Right is a number with |difference| <= allowed absolute + allowed relative × |recorded|; texts have to be the same,
    and their `allowed` is None. `absolute` and `relative` are None where nothing was subtracted.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    absolute: float | None
    relative: float | None
    allowed: dict[str, float] | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Replay:
    """The golden samples sent once through one door, `rows` in each request (None: the model has no batch).

    `form` is how tensors were written. `failure`: why it ended before all were sent.
    """

    protocol: str
    form: str
    sent: Literal["tensors", "raw samples"]
    rows: int | None
    requests: int
    outputs: tuple[ComparedOutput, ...]
    failure: str | None

    @property
    def door(self) -> str:
        """What was sent where, in few letters: `http 6×1`; raw samples go over HTTP."""
        rows = "" if self.rows is None else f"×{self.rows}"
        return f"{'raw' if self.sent == 'raw samples' else self.protocol} {self.requests}{rows}"

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong, with the door and the output."""
        wrong = [
            f"{self.door}, request {problem.request}: output {each.name!r} {problem.said}"
            for each in self.outputs
            for problem in each.problems
        ]
        if self.failure is not None:
            wrong.append(f"{self.door}: no usable answer: {self.failure}")
        elif not self.requests:
            wrong.append(f"{self.door}: the package has no golden sample")
        return tuple(wrong)


@dataclass(frozen=True)
class Checked(Told):
    """A package whose server was started, asked and stopped. `load`: one client over HTTP; None where answers differ.

    `start_s` went by until the server was ready, `notes` say in what it was not the one that the package is for, `log`
    has all that it wrote.
    """

    package: Path
    runtime: str
    name: str
    version: int
    digest: str
    files: int
    server: str
    start_s: float
    replays: tuple[Replay, ...]
    load: Load | None
    notes: tuple[str, ...]
    log: Path

    @property
    def problems(self) -> tuple[str, ...]:
        """Every difference, in words."""
        return tuple(problem for replay in self.replays for problem in replay.problems)

    @property
    def verdict(self) -> Literal["same", "different"]:
        """Whether every answer is the recorded one, within its tolerance."""
        return "different" if self.problems else "same"

    def summary(self) -> Iterator[Part]:
        """The verdict, each output, and the times."""
        from mlpack.api.check_summary import check_summary

        return check_summary(self)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        from mlpack.api.server_timings import load_document

        return {
            **asdict(self),
            "package": str(self.package),
            "log": str(self.log),
            "verdict": self.verdict,
            "problems": list(self.problems),
            "load": None if self.load is None else {"unit": "ms", "protocol": "http", **load_document(self.load)},
        }
