"""The Job that stages get: made from a JSON-able spec, so that it can be made again in a child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mlpack.backends import BACKENDS
from mlpack.core.dataset import DataRef
from mlpack.core.memory import give_back_at_once
from mlpack.core.model import Model
from mlpack.core.target import Target
from mlpack.core.words import Frozen
from mlpack.datasets.ref import open_part
from mlpack.engine import process
from mlpack.stages import STAGES

if TYPE_CHECKING:
    from mlpack.core.backend import Backend
    from mlpack.core.dataset import Dataset, Part
    from mlpack.core.stage import Say


class JobSpec(Frozen):
    """What a stage run depends on besides its options and the model it is given."""

    out: Path
    unfinished: Path | None = None
    target: Target
    threads: int
    seed: int
    data: DataRef | None = None
    baseline: dict[str, Any] | None = None
    rivals: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class RunJob:
    """A Job in the process that runs the stage (see core/stage.py for what each part is)."""

    spec: JobSpec
    model: Model | None
    say: Say

    @property
    def out(self) -> Path:
        return self.spec.out

    @property
    def unfinished(self) -> Path:
        assert self.spec.unfinished is not None, "the engine names it"
        return self.spec.unfinished

    @property
    def target(self) -> Target:
        return self.spec.target

    @property
    def threads(self) -> int:
        return self.spec.threads

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def baseline(self) -> Model | None:
        return Model.model_validate(self.spec.baseline) if self.spec.baseline else None

    @property
    def rivals(self) -> dict[str, Model]:
        return {label: Model.model_validate(model) for label, model in self.spec.rivals.items()}

    def dataset(self, part: Part) -> Dataset | None:
        if self.spec.data is None or (part == "train" and self.spec.data.train_path is None):
            return None
        known = self.baseline or self.model
        return open_part(self.spec.data, part, known.inputs if known else None)

    def backend(self, name: str) -> Backend:
        return BACKENDS[name]

    def launch(self, reference: str, arguments: dict[str, Any]) -> process.Launched:
        return process.Launched(reference, arguments, self.say)


def with_path(model: Model) -> dict[str, Any]:
    """A model as JSON with the folder that it lies in now."""
    return {"path": str(model.path), **model.model_dump(mode="json")}


def run_stage(
    say: Say, stage: str, options: dict[str, Any], model: dict[str, Any] | None, spec: dict[str, Any]
) -> dict[str, Any]:
    """Run one stage: what the child process is started for."""
    given = Model.model_validate(model) if model else None
    if given and given.on_disk:
        give_back_at_once()
    job = RunJob(JobSpec.model_validate(spec), given, say)
    outcome = STAGES[stage].model_validate(options).run(given, job)
    return {"model": with_path(outcome.model), "report": outcome.report.model_dump(mode="json")}
