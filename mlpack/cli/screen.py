"""The screen: the only place that prints. People read stderr, programs read one JSON document on stdout."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from mlpack.core.summary import Facts, Grid, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from mlpack.core.runlog import RunLog
    from mlpack.core.summary import Part

Detail = Literal["quiet", "normal", "verbose"]
WIDTH = 80
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ReaderGone(BaseException):
    """Whoever read our output has closed it: stop quietly."""


class Screen:
    """Output of one run. With `json`, stdout gets one document when the run ends, and nothing else."""

    def __init__(self, *, json: bool = False, detail: Detail = "normal", log: RunLog | None = None) -> None:
        self.json = json
        self.detail: Detail = detail
        self.log = log
        self._document: dict[str, Any] | None = None
        self._has_written = False

    def result(self, document: Mapping[str, Any], human: str | Told | Callable[[Screen], None]) -> None:
        """What the command found: a document for programs; text, a summary or a drawing function for people."""
        self._document = dict(document)
        if self.json:
            return
        if isinstance(human, str):
            self.print(human)
        elif isinstance(human, Told):
            self.show(human.summary())
        else:
            human(self)

    def print(self, text: str) -> None:
        """Lines for people, on stderr."""
        self._note("print", text)
        self._write(sys.stderr, printable(text) + "\n")

    def say(self, text: str) -> None:
        """A remark on what is going on; `--quiet` drops it."""
        self._note("say", text)
        if self.detail != "quiet":
            self._write(sys.stderr, printable(text) + "\n")

    def warn(self, text: str) -> None:
        """Something that the user should know though nothing failed."""
        self._note("warning", text)
        self._write(sys.stderr, f"warning: {printable(text)}\n")

    def pipe(self, text: str) -> None:
        """Text that people pipe into other programs, on stdout; not to be used with `--json`."""
        self._write(sys.stdout, text)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str = "",
        right: Sequence[str] = (),
    ) -> None:
        """A table that fits the terminal, or 80 columns; the columns named in `right` are right-aligned."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns), show_edge=False)
        if title:
            drawn.title, drawn.title_justify = printable(title), "left"
        for column in columns:
            drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
        console = self.console()
        with console.capture() as captured:
            console.print(drawn)
        lines = [*([""] if title else []), *(line.rstrip() for line in captured.get().splitlines())]
        self._write(sys.stderr, "\n".join(lines) + "\n")

    def show(self, parts: Iterable[Part]) -> None:
        """A summary, part by part."""
        for part in parts:
            if isinstance(part, str):
                self.print(part)
            elif isinstance(part, Grid):
                self.table(part.columns, part.rows, title=part.title, right=part.right)
            elif isinstance(part, Facts):
                for line in _wrapped(part, self.console().width):
                    self.print(line)
            else:
                for line in part.lines:
                    self.print(f"  {line}")

    def progress(self) -> Progress:
        """A context manager that is the reporter of the api: a bar on a terminal, else plain lines."""
        return Progress(self)

    def console(self) -> Console:
        """Rich's console on stderr; plain text and 80 columns where that is no terminal."""
        from rich.console import Console

        if is_terminal():
            return Console(stderr=True, highlight=False, markup=False)
        return Console(stderr=True, highlight=False, markup=False, width=WIDTH, force_terminal=False, color_system=None)

    def failed(self, error: Mapping[str, Any], trace: str = "") -> None:
        """The lines on an error: what, what to do, where the log lies; also into the document."""
        where = str(self.log.path) if self.log else None
        self._document = {**(self._document or {}), "error": {**error, "log": where}}
        self._note("error", f"{error['kind']}: {error['message']}\nhint: {error['hint']}")
        if trace:
            self._write(sys.stderr, printable(trace))
        for word, text in (("error", error["message"]), ("hint", error["hint"]), ("log", where)):
            if text:
                self._write(sys.stderr, f"{word}: {printable(text)}\n")

    def finish(self) -> None:
        """With `--json`, write the one document; what is found after it was written is on stderr alone."""
        if self.json and self._document is not None and not self._has_written:
            document, self._has_written = self._document, True
            text = json.dumps(_finite(document), indent=2, default=str)
            self._write(sys.stdout, text + "\n")

    def _note(self, kind: str, text: str) -> None:
        if self.log:
            self.log.write(kind, text)

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            raise ReaderGone from None


class Progress:
    """A Reporter. On a terminal a bar with the time left; elsewhere one line per stage, as it ends."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last = ""

    def __enter__(self) -> Self:
        if is_terminal() and self._screen.detail != "quiet":
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                SpinnerColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                console=self._screen.console(),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """What is being done now, and how far it is: `done` of `total`."""
        is_new = text != self._last
        self._last = text
        if is_new and self._screen.log:
            self._screen.log.write("say", text)
        if self._bar is not None:
            if is_new or self._task is None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(printable(text), total=total)
            self._bar.update(self._task, completed=done or 0, total=total)
        elif is_new and self._screen.detail == "verbose":
            self._screen._write(sys.stderr, f"  {printable(text)}\n")  # noqa: SLF001 - one file, one printer

    def stage_done(self, line: str) -> None:
        """A line that stays: a stage has ended."""
        if self._task is not None and self._bar is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._last = ""
        if self._bar is None:
            self._screen.say(line)
        else:
            if self._screen.log:
                self._screen.log.write("say", line)
            self._bar.console.print(printable(line), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that the user should know though nothing failed."""
        if self._bar is None:
            self._screen.warn(text)
        else:
            if self._screen.log:
                self._screen.log.write("warning", text)
            self._bar.console.print(f"warning: {printable(text)}", soft_wrap=True)


def _wrapped(facts: Facts, columns: int) -> Iterator[str]:
    """Its lines, broken between words where they would not fit so many columns; what goes on is indented further."""
    for name, lines in facts.rows:
        for index, line in enumerate(lines):
            margin = f"  {'' if index else name:<{facts.width}}"
            further = " " * (len(margin) + 2)
            yield from wrap(
                line,
                columns,
                initial_indent=margin,
                subsequent_indent=further,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [margin.rstrip()]


def is_terminal() -> bool:
    """Whether people see stderr on a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """The text without control characters, which names of files and messages of libraries may hold."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no word for: NaN and the infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
