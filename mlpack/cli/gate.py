"""`mlpack gate`: the CI step. May this artifact replace that one?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlpack.cli.options import MaybeRef, Store
from mlpack.errors import GateFailed, GateInconclusive, UsageError

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen
    from mlpack.core.gate import Gated

Flag = typer.Option


def command(
    screen: Screen,
    reference: MaybeRef = None,
    against: Annotated[
        str | None, Flag(metavar="REF|FILE", help="The baseline: an artifact, or a file by --write-baseline.")
    ] = None,
    data: Annotated[str | None, Flag(metavar="PATH", help="Score both on this data. Default: kept results.")] = None,
    metric: Annotated[str | None, Flag(metavar="NAME", help="Another metric; needs --data.")] = None,
    max_drop: Annotated[str | None, Flag(metavar="LIMIT", help="1% or 0.8pt. Default: the artifact's limit.")] = None,
    max_group_drop: Annotated[
        str | None, Flag(metavar="LIMIT", help="2%: no group of the data (array `group`) drops more.")
    ] = None,
    max_p50_regression: Annotated[
        str | None, Flag(metavar="PERCENT", help="Against the baseline's model, in turns. Default: 10%.")
    ] = None,
    max_p99: Annotated[str | None, Flag(metavar="TIME", help="20ms: P99 of single requests, here.")] = None,
    max_slow: Annotated[str | None, Flag(metavar="SHARE:TIME", help="1%:20ms: share of requests over it.")] = None,
    max_size: Annotated[str | None, Flag(metavar="SIZE", help="25MB, or +10% over the baseline.")] = None,
    max_memory: Annotated[str | None, Flag(metavar="SIZE", help="Peak of a serving process: 500MB or +10%.")] = None,
    require: Annotated[
        Literal["likely", "proven"], Flag(help="proven: `likely` is not good enough, and exits with 6.")
    ] = "likely",
    junit: Annotated[Path | None, Flag(metavar="FILE", help="Write JUnit XML.")] = None,
    summary: Annotated[Path | None, Flag(metavar="FILE.md", help="Write a Markdown summary.")] = None,
    write_baseline: Annotated[
        Path | None, Flag(metavar="FILE", help="Write REF's baseline file, to commit; judges nothing alone.")
    ] = None,
    threads: Annotated[int | None, Flag(min=1, help="Threads. Default: the CPUs this process may use.")] = None,
    store: Store = None,
    *,
    no_latency: Annotated[bool, Flag("--no-latency", help="Measure no times on this machine.")] = False,
) -> None:
    """Judge an artifact against a baseline: accuracy row by row, and speed measured side by side."""
    from mlpack.api.gate import gate, save_baseline

    if against is None and write_baseline is None:
        raise UsageError("which baseline?", "--against NAME@prod, or --against FILE by --write-baseline FILE")
    found = None
    if against is not None:
        with screen.progress() as reporter:
            found = gate(
                reference,
                against=against,
                data=data,
                metric=metric,
                max_drop=max_drop,
                max_group_drop=max_group_drop,
                max_p50_regression=max_p50_regression,
                max_p99=max_p99,
                max_slow=max_slow,
                max_size=max_size,
                max_memory=max_memory,
                latency=not no_latency,
                threads=threads,
                store=store,
                reporter=reporter,
            )
        _write_reports(found, junit, summary)
        _annotate(screen, found)
        screen.result(found.document(), found)
    if write_baseline is not None:
        stored = save_baseline(reference, write_baseline, store=store)
        named = f"{stored.artifact.name}@{stored.artifact.version}"
        screen.say(f"baseline of {named} written to {write_baseline} ({write_baseline.stat().st_size:,} bytes)")
        if found is None:
            screen.result({"baseline": str(write_baseline), "of": named, "digest": stored.artifact.digest}, "")
    if found is not None:
        _end(found, require)


def _write_reports(found: Gated, junit: Path | None, summary: Path | None) -> None:
    from mlpack.core.filesystem import write_atomic
    from mlpack.reports.junit import junit as as_junit
    from mlpack.reports.markdown import markdown

    if junit is not None:
        write_atomic(junit, as_junit(found))
    if summary is not None:
        write_atomic(summary, markdown(found))
    job = os.environ.get("GITHUB_STEP_SUMMARY")
    if job and summary is None:
        with Path(job).open("a", encoding="utf-8") as file:
            file.write(markdown(found))


def _annotate(screen: Screen, found: Gated) -> None:
    from mlpack.reports.github import workflow_commands

    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(found):
            screen.print(line)


def _end(found: Gated, require: str) -> None:
    """The exit code: 0, or the error that says which checks were not passed."""
    verdict = found.verdict
    if verdict == "pass" or (verdict == "likely" and require == "likely"):
        return
    named = [f"{check.name}: {check.says}" for check in found.checks if check.verdict == verdict]
    said = f"{found.label} against {found.against}: {verdict}: {'; '.join(named)}"
    if verdict == "fail":
        raise GateFailed(said, "look at what has changed: mlpack diff")
    if verdict == "none":
        raise UsageError(said, "give labelled data: --data FILE")
    if verdict == "unstable":
        raise GateInconclusive(
            said, "other work ran on this machine: run it again, or leave the times out: --no-latency"
        )
    raise GateInconclusive(said, "more data (--data FILE) or a wider limit would tell")
