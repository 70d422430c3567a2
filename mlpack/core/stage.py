"""Stage: typed options and `run(model, job) -> Outcome(model, report)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mlpack.core.backend import Backend
    from mlpack.core.dataset import Dataset, Part
    from mlpack.core.model import Format, Model
    from mlpack.core.report import Report
    from mlpack.core.target import Target


BEFORE = "before"
"""The rival that a diagnosis gets: what the stage in question was given."""


@dataclass(frozen=True)
class Outcome:
    """What a stage gives: a model (the one it was given, if it only measures) and a report."""

    model: Model
    report: Report


class Say(Protocol):
    """Tells the user how far a stage has come."""

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """`text` is one line; `done` of `total` steps are over."""
        ...


class Launched(Protocol):
    """A function loaded in a fresh process, waiting for its turn."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    def ready(self) -> None:
        """Wait until it has loaded what it needs."""
        ...

    def finish(self) -> Any:
        """Let it run; its JSON result. An error in the child is raised here."""
        ...

    def end(self) -> None:
        """Kill it if it still runs."""
        ...


class Launch(Protocol):
    """Starts `package.module:function(say, **arguments)` in a fresh process; it says "ready" and waits for a line."""

    def __call__(self, reference: str, arguments: dict[str, Any]) -> Launched:
        """Arguments and result are JSON."""
        ...


class Job(Protocol):
    """All that a stage may use."""

    @property
    def out(self) -> Path:
        """The empty folder to write into: the model's folder, or the report's files."""
        ...

    @property
    def unfinished(self) -> Path:
        """A folder that outlives a kill, for this very work: what lies in it is gone on from. It may not be there."""
        ...

    @property
    def target(self) -> Target:
        """The hardware that the model is for."""
        ...

    @property
    def threads(self) -> int:
        """Threads that a backend may use."""
        ...

    @property
    def seed(self) -> int:
        """The seed of all that is drawn."""
        ...

    @property
    def baseline(self) -> Model | None:
        """The model as the user would run it today; None while it is being loaded."""
        ...

    @property
    def rivals(self) -> dict[str, Model]:
        """Other models by label, measured side by side with the one given."""
        ...

    @property
    def say(self) -> Say:
        """Tells the user how far the stage has come."""
        ...

    @property
    def launch(self) -> Launch:
        """Starts a function in a fresh process, to be run in its turn."""
        ...

    def dataset(self, part: Part) -> Dataset | None:
        """The part of the data that has this name, or None where the user gave no data."""
        ...

    def backend(self, name: str) -> Backend:
        """The backend of this name."""
        ...


class Stage(Frozen):
    """Options as typed fields, and one verb. A new stage is one file and one line in the table.

    `accepts` are the formats it takes (empty: it is a source) and `gives` the one it produces (None: the one
    it was given). `reads` says which parts of the data a run with these options looks at, `libraries` which
    libraries its result depends on, `keyed_by_baseline` that it looks at the baseline. A stage with
    `timing` is never reused from the cache; one that `chooses_backend` gives a model that can be served.
    """

    name: ClassVar[str]
    accepts: ClassVar[tuple[Format, ...]]
    gives: ClassVar[Format | None] = None
    libraries: ClassVar[tuple[str, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ()
    timing: ClassVar[bool] = False
    keyed_by_baseline: ClassVar[bool] = False
    keyed_by_target: ClassVar[bool] = True
    keyed_by_threads: ClassVar[bool] = False
    chooses_backend: ClassVar[bool] = False

    def keyed(self) -> dict[str, Any]:
        """The options as the cache key has them: two ways to write one thing are one."""
        return self.model_dump(mode="json")

    def counts_threads(self) -> bool:
        """Whether a run with these options may end otherwise on another number of threads."""
        return self.keyed_by_threads

    def needs(self) -> tuple[str, ...]:
        """The libraries that the result of a run with these options depends on."""
        return self.libraries

    def served_by(self, report: Report) -> bool:
        """Whether what an earlier run with the same key reported is enough: one may have been asked for less."""
        del report
        return True

    def reads(self) -> tuple[Part, ...]:
        """Parts of the data that a run with these options looks at."""
        return ()

    def trains(self) -> bool:
        """Whether a run with these options, or of a milder form of them, learns from training rows."""
        return False

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Modules that a run on this model will import, where that takes long: imported once for several runs."""
        del model
        return ()

    def clash(self) -> str | None:
        """Which of these options have no effect beside the others, or None: asked before anything runs."""
        return None

    def refusal(self, target: Target) -> str | None:
        """Why these options cannot work for this target, or None: asked before anything runs."""
        del target
        return None

    def lacks(self) -> str | None:
        """What this machine lacks that a run would need, or None; libraries are asked for by `libraries`."""
        return None

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """The concrete stages to try in place of this one, given the model it would get."""
        del model, target
        return (self,)

    def fewer_threads(self, threads: int) -> tuple[Stage, ...]:
        """Forms of this stage whose model runs with fewer threads than these, the most first."""
        del threads
        return ()

    def diagnosis(self) -> tuple[Stage, ...]:
        """Stages that measure what `milder` has to know, none where it has nothing to propose.

        They get the finished candidate, and as the rival `BEFORE` the model that this stage was given.
        """
        return ()

    def milder(self, reports: Mapping[str, Report], excess: float) -> Generator[Stage, float, None]:
        """Forms of this stage that cost less accuracy, one at a time.

        `reports` are the diagnosis's, by stage; `excess` is this form's drop over the allowed one. Each proposal is
        answered with its own excess: it holds up to 1.
        """
        del reports, excess
        yield from ()

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Do the work; write into `job.out` and nowhere else.

        Raises:
            StageFailed: a library refused this model.
        """
        raise AssertionError(self.name, model, job)
