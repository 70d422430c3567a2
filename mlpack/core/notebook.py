"""How far a command has come, shown in the IPython session that called it: in a notebook's cell, or on one line."""

from __future__ import annotations

import functools
import shutil
import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from mlpack.core.reporter import Silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")

# Each update is a message to the browser: more of them than eyes can follow only slow the command down.
_STEP_SECONDS = 0.2
_SHOWN_LINES = 5


def progress_in_notebooks(verb: Callable[P, T]) -> Callable[P, T]:
    """A verb that shows its progress in a notebook or IPython where it is given no `reporter`."""
    call: Callable[..., T] = verb

    @functools.wraps(verb)
    def shown(*args: P.args, **kwargs: P.kwargs) -> T:
        session = None if kwargs.get("reporter") is not None else _session()
        if session is None:
            return verb(*args, **kwargs)
        in_cell = getattr(session, "kernel", None) is not None
        with Cell(f"mlpack.{verb.__name__}") if in_cell else Line() as reporter:
            return call(*args, **{**kwargs, "reporter": reporter})

    return shown


def _session() -> Any | None:
    """The IPython session that runs this, if one does; nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


class Cell(Silent):
    """A Reporter: one display of a cell's output, updated in place. Warnings stay Python warnings."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._handle: Any = None
        self._lines: list[str] = []
        self._text = ""
        self._shown = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is None:
            return
        seconds = f"{time.monotonic() - self._start:.1f} s"
        told = f"{self._verb}: {seconds}" if kind is None else f"{self._verb}: ended after {seconds}: {self._text}"
        kept = f"<details><summary>{escape(told)}</summary>{_pre(self._lines)}</details>"
        self._show(kept if self._lines else f"<div>{escape(told)}</div>", told)

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """The bar, and the last stages that ended."""
        now = time.monotonic()
        if text == self._text and now - self._shown < _STEP_SECONDS:
            return
        self._text, self._shown = text, now
        known = "" if total is None else f' value="{done or 0}" max="{total}"'
        far = "" if total is None else f" {done or 0}/{total}"
        bar = f"<div><progress{known}></progress> {escape(text + far)}</div>"
        self._show(_pre(self._lines[-_SHOWN_LINES:]) + bar, f"{self._verb}: {text}{far}")

    def stage_done(self, line: str) -> None:
        """Keep the line; it is shown with what is said next, and at the end."""
        self._lines.append(line)

    def _show(self, html: str, plain: str) -> None:
        data = {"text/html": html, "text/plain": plain}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class Line(Silent):
    """A Reporter: one line of a terminal, written over and over; nothing where stderr is no terminal."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("")

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Write over the line."""
        self._write(text if total is None else f"{text} {done or 0}/{total}")

    def stage_done(self, line: str) -> None:
        """A line that stays."""
        self._write(line, "\n")

    @staticmethod
    def _write(text: str, end: str = "") -> None:
        if sys.stderr.isatty():
            shown = "".join(each if each.isprintable() else " " for each in text)
            sys.stderr.write(f"\r\x1b[K{shown[: shutil.get_terminal_size().columns - 1]}{end}")
            sys.stderr.flush()


def _pre(lines: list[str]) -> str:
    return f'<pre style="margin:0">{escape(chr(10).join(lines))}</pre>' if lines else ""
