"""What people read of a `check`: the verdict, each output beside what is allowed, and the times."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mlpack.core.summary import Grid
from mlpack.core.wording import count, number
from mlpack.measure.load import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.api.checked import Checked, ComparedOutput, Replay
    from mlpack.core.summary import Part
    from mlpack.measure.load import Load

_WIDTH = 80
_MOST_PROBLEMS = 5
_ABSENT = "–"


def check_summary(done: Checked) -> Iterator[Part]:
    """Its lines and its table."""
    said = "every answer is as recorded" if done.verdict == "same" else "answers differ from the recorded ones"
    yield _folded(f"{done.name}@{done.version} for {done.runtime}: {said}")
    columns = ("requests", "output", "type", "off by", "relative", "allowed")
    rows = [_row(replay, each) for replay in done.replays for each in replay.outputs]
    yield Grid(columns, rows, right=("off by", "relative"))
    for problem in done.problems[:_MOST_PROBLEMS]:
        yield _folded(problem)
    if len(done.problems) > _MOST_PROBLEMS:
        yield f"and {count(len(done.problems) - _MOST_PROBLEMS, 'more difference')}"
    yield ""
    yield f"{done.server}: ready after {number(done.start_s, 3)} s; {count(done.files, 'file')}, all as packaged"
    if done.load is not None:
        yield from _timed(done.load)
    for note in done.notes:
        yield _folded(note)


def _row(replay: Replay, each: ComparedOutput) -> tuple[str, ...]:
    without_number = f"{len(each.problems)} wrong" if each.problems else "same"
    off = without_number if each.absolute is None else f"{each.absolute:.2g}"
    relative = _ABSENT if each.relative is None else f"{each.relative:.2g}"
    allowed = each.allowed and f"{each.allowed['absolute']:.2g} + {each.allowed['relative']:.2g}·|x|"
    return (replay.door, each.name, f"{each.datatype}{list(each.shape)}", off, relative, allowed or _ABSENT)


def _timed(load: Load) -> Iterator[str]:
    known = [
        f"{each.name.upper()} {shown(each.ms)} ms [{shown(each.ci95[0])}, {shown(each.ci95[1])}]"
        for each in load.percentiles
        if each.ms is not None and each.ci95 is not None
    ]
    asked = f"one client over HTTP for {number(load.seconds)} s: {count(load.good, 'answer')}"
    yield _folded(f"{asked}, {', '.join(known)}" if known else asked)
    for note in load.notes:
        yield _folded(note)


def _folded(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
