"""A gate as Markdown: the table of its checks and what has changed, for a pull request or a job's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.gate import Gated

SIGNS = {
    "pass": "✅",
    "likely": "🟡",
    "inconclusive": "❔",
    "unstable": "❔",
    "fail": "❌",
    "none": "❔",
    "skipped": "➖",
}
_MOST_CHANGES = 30


def markdown(found: Gated) -> str:
    """The document."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Gated) -> Iterator[str]:
    yield f"## {SIGNS[found.verdict]} {_cell(found.label)} against {_cell(found.against)}: {found.verdict}"
    yield ""
    yield "| check | measured | allowed | verdict |"
    yield "| --- | --- | --- | --- |"
    for check in found.checks:
        verdict = f"{SIGNS[check.verdict]} {check.verdict}"
        yield f"| {_cell(check.name)} | {_cell(check.says)} | {_cell(check.allowed)} | {verdict} |"
    for note in found.notes:
        yield ""
        yield f"> {_cell(note)}"
    if found.changes:
        yield ""
        yield "<details><summary>What has changed</summary>"
        yield ""
        yield "| part | what | before | after |"
        yield "| --- | --- | --- | --- |"
        for change in found.changes[:_MOST_CHANGES]:
            cells = (change.part, change.what, _value(change.before), _value(change.after))
            yield f"| {' | '.join(map(_cell, cells))} |"
        if len(found.changes) > _MOST_CHANGES:
            yield f"| … | {len(found.changes) - _MOST_CHANGES} more: `mlpack diff` lists all | | |"
        yield ""
        yield "</details>"


def _value(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Text that stays inside its cell and is not taken for markup."""
    shown = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(shown.split())
