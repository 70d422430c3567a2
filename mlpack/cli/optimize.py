"""`mlpack optimize`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlpack.cli.options import Store
from mlpack.cli.recipe_flags import RecipeFlags, takes_recipe_flags
from mlpack.errors import GateInconclusive

if TYPE_CHECKING:
    from mlpack.api.optimize import Optimized
    from mlpack.cli.screen import Screen

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would run: mlpack plan.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Redo what the cache has, too.")]

WorkersFlag = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Candidates made and scored at once. Default: as many as --threads leave "
                 "CPUs for."),
]  # fmt: skip
RayFlag = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="A Ray cluster that makes and scores candidates; they are timed "
                 "here."),
]  # fmt: skip


@takes_recipe_flags
def command(
    screen: Any,
    flags: RecipeFlags,
    store: Store = None,
    workers: WorkersFlag = None,
    ray: RayFlag = None,
    *,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Make a model smaller and faster, prove how accurate it still is, and publish it."""
    if dry_run:
        from mlpack.cli.plan import show_plan

        show_plan(screen, flags, fresh=fresh)
        return
    from mlpack.api.optimize import optimize

    with screen.progress() as reporter:
        if flags.no_limit:
            reporter.warn("--no-limit: the result is published whatever its accuracy")
        done = optimize(
            flags.model, store=store, fresh=fresh, workers=workers, ray=ray, reporter=reporter, **flags.wanted
        )
    tell(screen, done)


def tell(screen: Screen, done: Optimized) -> None:
    """The result, and exit 6 where the samples cannot tell."""
    artifact = done.stored.artifact
    document = artifact.model_dump(mode="json", by_alias=True)
    screen.result({**document, "path": str(done.stored.path), "unchanged": done.unchanged}, done)
    if artifact.accuracy.verdict == "inconclusive":
        needed = artifact.accuracy.samples_to_prove
        no_help = "more samples will not help: the drop is at the limit"
        more = f"about {needed:,} samples would tell" if needed else no_help
        raise GateInconclusive(
            f"{artifact.name}@{artifact.version} is published as a candidate: {artifact.accuracy.samples:,} samples "
            f"cannot tell whether the drop is inside {artifact.accuracy.limit_text}",
            f"{more}; package and tag take a candidate with --force",
        )
