"""The course of a request: its parts, when each began and when it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Course:
    """Parts in the order in which they ended, in seconds of `time.perf_counter`; waiting comes between the others."""

    started: float = field(default_factory=time.perf_counter)
    parts: list[tuple[str, float, float]] = field(default_factory=list)
    _ended: float | None = None

    def did(self, part: str, seconds: float | None = None) -> None:
        """A part ends now. It took so many seconds, and what lies before it was waiting; None: no wait before it."""
        now = time.perf_counter()
        last = self.started if self._ended is None else self._ended
        began = last if seconds is None else max(last, now - seconds)
        if seconds is not None:
            self.parts.append(("queue", last, began))
        self.parts.append((part, began, now))
        self._ended = now

    def begin(self) -> None:
        """The body is there: what was before is the client's time."""
        self._ended = time.perf_counter()

    def totals(self) -> dict[str, float]:
        """Seconds by part."""
        summed: dict[str, float] = {}
        for part, began, ended in self.parts:
            summed[part] = summed.get(part, 0.0) + ended - began
        return summed
