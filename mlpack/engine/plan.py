"""Plan: which stages a recipe would run, as far as that is known without running one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlpack.engine.cache import find, ingredients, key_of
from mlpack.engine.explain import differences, earlier, nearest
from mlpack.engine.validate import options_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.core.model import Model
    from mlpack.core.recipe import Step
    from mlpack.core.stage import Stage
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context

State = Literal["kept", "runs", "unknown"]


@dataclass(frozen=True)
class Planned:
    """One stage that a run would come to.

    `kept`: an earlier run did it. `runs`: it would be done. `unknown`: it waits for a stage that would be done
    first, so its options may still be replaced by what it then proposes. `depth` counts the stages before it;
    `optional` marks a step that is also left out; `why` says what has changed since the nearest earlier run of
    this stage, empty where there was none.
    """

    stage: str
    options: dict[str, Any]
    state: State
    depth: int = 0
    optional: bool = False
    writes_model: bool = False
    why: tuple[str, ...] = ()
    done: Done | None = None


@dataclass(frozen=True)
class Leaf:
    """The end of one way through the steps: the candidate's model where it is known."""

    model: Model | None
    planned: Planned | None


class Planner:
    """Looks stages up in the cache without running any; `plan` and its screen are made of what it finds."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._earlier: dict[str, list[dict[str, Any]]] | None = None

    def look_up(self, stage: Stage, model: Model | None, *, depth: int = 0, optional: bool = False) -> Planned:
        """What a run would do for this stage on this model."""
        content = ingredients(stage.name, stage, model, self.context, {})
        done = None if stage.timing or self.context.fresh else find(stage_folder(self.context.cache, content))
        if done is not None and not stage.served_by(done.report):
            done = None
        return Planned(
            stage=stage.name,
            options=told(stage),
            state="runs" if done is None else "kept",
            depth=depth,
            optional=optional,
            writes_model=stage.gives is not None,
            why=() if done is not None else self._why(stage, content),
            done=done,
        )

    def grow(self, steps: tuple[Step, ...], model: Model | None) -> tuple[list[Planned], list[Leaf]]:
        """All ways through the steps from this model, in the order in which a run takes them."""
        leaves: list[Leaf] = []
        planned = list(self._grow(steps, model, None, 0, leaves))
        return planned, leaves

    def _grow(
        self, steps: tuple[Step, ...], model: Model | None, last: Planned | None, depth: int, leaves: list[Leaf]
    ) -> Iterator[Planned]:
        if not steps:
            leaves.append(Leaf(model, last))
            return
        step, rest = steps[0], steps[1:]
        if step.optional and model is not None:
            yield from self._grow(rest, model, last, depth, leaves)
        stage = options_of(step)
        if model is None:
            waits = Planned(
                stage=stage.name,
                options=told(stage),
                state="unknown",
                depth=depth,
                optional=step.optional,
                writes_model=stage.gives is not None,
            )
            yield waits
            yield from self._grow(rest, None, waits, depth + 1, leaves)
            return
        for proposed in stage.propose(model, self.context.target):
            each = self.look_up(proposed, model, depth=depth, optional=step.optional)
            yield each
            yield from self._grow(rest, each.done.model if each.done else None, each, depth + 1, leaves)

    def _why(self, stage: Stage, content: dict[str, Any]) -> tuple[str, ...]:
        if stage.timing:
            return ("a timing is never kept",)
        if self._earlier is None:
            self._earlier = earlier(self.context.cache)
        before = nearest(self._earlier.get(stage.name, []), content)
        return () if before is None else tuple(differences(before, content))


def stage_folder(cache: Path, content: dict[str, Any]) -> Path:
    """Where the stage with these ingredients is kept."""
    key = key_of(content)
    return cache / "stages" / key[:2] / key


def told(stage: Stage) -> dict[str, Any]:
    """The options that are required or differ from their defaults."""
    fields = type(stage).model_fields
    shown = stage.model_dump(mode="json")
    return {name: shown[name] for name, value in stage if fields[name].is_required() or value != fields[name].default}
