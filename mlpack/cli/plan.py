"""`mlpack plan`: what would run, and what would stand in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlpack.cli.recipe_flags import RecipeFlags, takes_recipe_flags
from mlpack.cli.wording import count, number, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.api.decision import Decision
    from mlpack.api.plan import Plan
    from mlpack.cli.screen import Screen
    from mlpack.engine.plan import Planned

Why = Annotated[bool, typer.Option("--why", help="Say what has changed for each stage that ran before.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="As if the cache were empty.")]
_HIDDEN = {"sha256", "factory_sha256", "data_inputs", "metric_sha256"}
_STATES = {"kept": "kept", "runs": "would run", "unknown": "would run"}


@takes_recipe_flags
def command(screen: Any, flags: RecipeFlags, *, why: Why = False, fresh: Fresh = False) -> None:
    """Say what `mlpack optimize` with the same flags would run, what is kept, and what this machine lacks."""
    show_plan(screen, flags, why=why, fresh=fresh)


def show_plan(screen: Screen, flags: RecipeFlags, *, why: bool = False, fresh: bool = False) -> None:
    """The plan of these flags; `mlpack optimize --dry-run` shows it too."""
    from mlpack.api.plan import plan

    with screen.progress() as reporter:
        found = plan(flags.model, fresh=fresh, reporter=reporter, **flags.wanted)

    def human(screen: Screen) -> None:
        _draw(screen, found, why=why)

    screen.result(found.document(), human)


def _draw(screen: Screen, found: Plan, *, why: bool) -> None:
    screen.table(("stage", "options", "now"), map(_row, found.steps))
    screen.print("")
    screen.table(("then", "now"), found.measuring)
    screen.print("")
    for line in _facts(found):
        screen.print(line)
    if why:
        _draw_why(screen, found)
    elif any(each.why for each in found.steps):
        screen.print("--why says what has changed since earlier runs of these stages")


def _row(each: Planned) -> tuple[str, str, str]:
    options = ", ".join(f"{name}={_short(value)}" for name, value in each.options.items() if name not in _HIDDEN)
    optional = " (and without)" if each.optional and each.state == "unknown" else ""
    return "  " * each.depth + each.stage + optional, options, _STATES[each.state]


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value)
    return text.rpartition("/")[2] if "/" in text else text


def _facts(found: Plan) -> Iterator[str]:
    runs = sum(each.state != "kept" for each in found.steps)
    many = "" if found.candidates is None else f" for {count(found.candidates, 'candidate')}"
    yield f"{runs} of {count(len(found.steps), 'stage')} would run{many}"
    if any(each.state == "unknown" for each in found.steps):
        yield "in which ways a step is tried shows once the stage before it has run"
    yield f"target {found.target}, {count(found.threads, 'thread')}"
    if found.disk_bytes is None or found.memory_bytes is None:
        yield "disk and memory: not known before the model is loaded"
    elif runs:
        yield f"at most about {size(found.disk_bytes)} on the disk, {size(found.memory_bytes)} of memory"
    yield from _decision(found.decision)
    if not found.lacks:
        yield "this machine lacks nothing that it needs"
    for each in found.lacks:
        yield f"lacking: {each}"


def _decision(this: Decision) -> Iterator[str]:
    if this.chance is None or this.limit is None or this.samples_needed is None or this.samples is None:
        yield f"can the data decide? {this.reason}"
        return
    whose = "measured" if this.baseline_measured else "assumed"
    base = f"{this.metric} {number(this.baseline)}, {whose}"
    yield f"can the data decide? Limit {this.limit_text} = {number(this.limit * 100, 3)}pt ({base})"
    yield f"  {count(this.samples, 'sample')} would prove a harmless model in {_share(this.chance)} of cases"
    if not this.enough:
        yield f"  {this.samples_needed:,} would in 80% of cases"
    yield "  near the limit more data will not help"


def _share(chance: float) -> str:
    return "over 99%" if chance > 0.99 else "under 1%" if chance < 0.01 else f"{chance:.0%}"  # noqa: PLR2004


def _draw_why(screen: Screen, found: Plan) -> None:
    lines: list[str] = []
    for each in found.steps:
        if each.state == "runs":
            lines += [f"{each.stage}: {line}" for line in each.why or ("no earlier run of it is kept",)]
    screen.print("\nwhy, against the nearest earlier run of the same stage:" if lines else "\nall is kept")
    for line in dict.fromkeys(lines):
        screen.print(f"  {line}")
    if any(each.state == "unknown" for each in found.steps):
        screen.print("  the stages after them wait for the models that they make")
