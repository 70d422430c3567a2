"""What a gate found: one Check for each thing that was asked, and the verdict of them all."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mlpack.core.words import Frozen

Answer = Literal["pass", "likely", "inconclusive", "unstable", "fail", "none", "skipped"]
_WORST_FIRST: tuple[Answer, ...] = ("fail", "none", "unstable", "inconclusive", "likely", "pass")


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


class Change(Frozen):
    """One thing in which the artifact differs from the baseline."""

    part: str
    what: str
    before: Any
    after: Any


class Gated(Frozen):
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

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"verdict": self.verdict, **self.model_dump(mode="json")}
