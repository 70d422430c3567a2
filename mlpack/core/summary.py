"""Summary: what people read of a result, as data. The command line draws it, a notebook shows it as a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TABLE = "border-collapse:collapse;margin:0.4em 0"
# Jupyter centres cells and aligns them to the right unless each of them says otherwise.
_CELL = "padding:0.1em 1.2em 0.1em 0;text-align:{};vertical-align:top;white-space:pre-wrap"


@dataclass(frozen=True)
class Facts:
    """Names with their lines; on a screen a name takes `width` columns."""

    rows: Sequence[tuple[str, Sequence[str]]]
    width: int = 10


@dataclass(frozen=True)
class Grid:
    """A table; the columns named in `right` hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    right: Sequence[str] = ()


@dataclass(frozen=True)
class Commands:
    """Lines to paste."""

    lines: Sequence[str]


Part = str | Facts | Grid | Commands


class Told(ABC):
    """A result that people are told of: on the screen and in a notebook with the same words."""

    @abstractmethod
    def summary(self) -> Iterable[Part]:
        """Lines and tables, the verdict first; an empty line parts what stands before it from what follows."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self.summary())


def as_html(parts: Iterable[Part]) -> str:
    """The parts as HTML that needs nothing else and runs nothing; a first part that is a line is the heading."""
    kept = [part for part in parts if part != ""]
    return f"<div>{''.join(_drawn(part, first=index == 0) for index, part in enumerate(kept))}</div>"


def _drawn(part: Part, *, first: bool) -> str:
    if isinstance(part, str):
        text = escape(part.strip())
        return f"<div><b>{text}</b></div>" if first else f"<div>{text}</div>"
    if isinstance(part, Commands):
        return f'<pre style="margin:0.2em 0 0.4em 1em">{escape(chr(10).join(part.lines))}</pre>'
    if isinstance(part, Facts):
        return _table([_row("td", (name, "\n".join(lines)), ()) for name, lines in part.rows])
    right = [index for index, column in enumerate(part.columns) if column in part.right]
    title = f"<div>{escape(part.title)}</div>" if part.title else ""
    heads = [_row("th", part.columns, right)] if any(part.columns) else []
    return title + _table([*heads, *(_row("td", row, right) for row in part.rows)])


def _table(rows: Sequence[str]) -> str:
    return f'<table style="{_TABLE}">{"".join(rows)}</table>'


def _row(tag: str, cells: Sequence[object], right: Sequence[int]) -> str:
    drawn = (
        f'<{tag} style="{_CELL.format("right" if index in right else "left")}">'
        f"{escape('' if cell is None else str(cell))}</{tag}>"
        for index, cell in enumerate(cells)
    )
    return f"<tr>{''.join(drawn)}</tr>"
