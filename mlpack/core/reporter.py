"""Reporter: tells whoever waits how far a command has come; the command line draws it, Python callers may."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """What the api is given to tell its progress to."""

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """`text` is one line on what is being done now; `done` of `total` steps are over."""
        ...

    def stage_done(self, line: str) -> None:
        """`line` is worth keeping: a stage has ended."""
        ...

    def warn(self, text: str) -> None:
        """`text` is something that the user should know though nothing failed."""
        ...


class Silent:
    """The reporter of Python callers who gave none: drops progress, turns warnings into Python warnings."""

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Nothing."""

    def stage_done(self, line: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """A Python warning."""
        import warnings

        warnings.warn(text, stacklevel=2)
