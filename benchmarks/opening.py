"""A model of the benchmarks as `mlpack optimize` opens it: loaded, with its data, and as a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.api.prepare import Prepared
    from mlpack.api.wanted import Wanted
    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.engine.context import Context
    from mlpack.engine.judge import Judge


@dataclass(frozen=True)
class Opened:
    """The recipe, and what is ready to run it."""

    recipe: Recipe
    ready: Prepared

    @property
    def context(self) -> Context:
        """What stages run in."""
        return self.ready.context

    @property
    def original(self) -> Model:
        """As it was handed in."""
        return self.ready.baseline

    def exported(self) -> Model:
        """Its graph as the exporter leaves it."""
        from mlpack.engine.run import run
        from mlpack.stages.export import Export

        return run(Export(), self.original, self.context).model

    def simplified(self) -> Model:
        """Its graph as the quantizer gets it."""
        from mlpack.engine.run import run
        from mlpack.stages.simplify import Simplify

        return run(Simplify(), self.exported(), self.context).model

    def judge(self, limit: str | None = None) -> Judge:
        """Scores and compares; its recipe has the metric settled."""
        from mlpack.api.optimize import settled
        from mlpack.engine.judge import Judge
        from mlpack.measure.limits import Limit

        recipe, _ = settled(self.recipe, None, self.ready)
        return Judge(recipe, None if limit is None else Limit.parse(limit), self.context)


def opened(words: list[str], place: Path, **more: Any) -> Opened:
    """What `mlpack optimize WORDS` opens, with its cache in this folder and nothing of the user's own settings.

    `words` are a model and its flags, each with a value; `more` are keywords of `mlpack.optimize`.
    """
    from mlpack.api.prepare import prepare
    from mlpack.api.wanted import recipe_for
    from mlpack.core.reporter import Silent
    from mlpack.core.settings import load_settings

    model, *flags = words
    told = dict(zip((flag.removeprefix("--") for flag in flags[::2]), flags[1::2], strict=True))
    recipe = recipe_for(load_settings(place), model, cast("Wanted", {**told, **more}))
    return Opened(recipe, prepare(recipe, place / "cache", Silent()))
