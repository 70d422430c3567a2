"""What a gate found: one Check for each thing that was asked, and the verdict of them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from mlpack.core.summary import Facts, Grid, Part, Told
from mlpack.core.words import Frozen

Answer = Literal["pass", "likely", "inconclusive", "unstable", "fail", "none", "skipped"]
_WORST_FIRST: tuple[Answer, ...] = ("fail", "none", "unstable", "inconclusive", "likely", "pass")
_MOST_CHANGES = 8
_VERDICT_WIDTH = 13


class Check(Frozen):
    """One question of a gate with its answer.

    `measured`, `interval` and `limit` are in `unit`; an end of the interval is null where nothing bounds it.
    """

    name: str
    verdict: Answer
    measured: float | None = None
    interval: tuple[float | None, float | None] | None = None
    confidence: float | None = Field(default=None, description="of the interval, both sides together")
    limit: float | None = None
    unit: str = ""
    says: str = Field(description="what was measured, as people read it")
    allowed: str = Field(default="", description="the limit, as people read it")

    @property
    def told(self) -> str:
        """What was measured, beside the limit."""
        return f"{self.says}; allowed {self.allowed}" if self.allowed else self.says


class Change(Frozen):
    """One thing in which the artifact differs from the baseline."""

    part: str
    what: str
    before: Any
    after: Any


class Gated(Frozen, Told):
    """Every check of an artifact against a baseline."""

    name: str
    version: int
    digest: str
    against: str
    checks: tuple[Check, ...]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Answer:
        """The worst of all answers; `none` where nothing was answered."""
        given = {check.verdict for check in self.checks}
        return next((answer for answer in _WORST_FIRST if answer in given), "none")

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def summary(self) -> Iterator[Part]:
        """The verdict, every check, and what has changed."""
        yield ""
        yield f"{self.label} against {self.against}: {self.verdict.upper()}"
        yield ""
        yield Facts([(check.verdict, (check.name, check.told)) for check in self.checks], width=_VERDICT_WIDTH)
        for note in self.notes:
            yield f"  note: {note}"
        if self.changes:
            yield ""
            yield "what has changed:"
            rows = [(each.part, each.what, str(each.before), str(each.after)) for each in self.changes[:_MOST_CHANGES]]
            yield Grid(("part", "what", "before", "after"), rows)
        if len(self.changes) > _MOST_CHANGES:
            yield f"and {len(self.changes) - _MOST_CHANGES} more: mlpack diff"

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"verdict": self.verdict, **self.model_dump(mode="json")}
