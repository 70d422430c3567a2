"""Workers: stages that do not wait for one another are run side by side, each in a process of its own."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol, Self

from mlpack.engine import process
from mlpack.engine.run import run
from mlpack.errors import MlpackError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import TracebackType

    from mlpack.core.model import Model
    from mlpack.core.reporter import Reporter
    from mlpack.core.stage import Stage
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context

Place = tuple[int, ...]
"""Where a task stands in the order in which one worker would do all of them."""

_A_MOMENT = 0.2


@dataclass(frozen=True)
class Task:
    """A stage to be run on a model."""

    stage: Stage
    model: Model
    label: str


@dataclass
class Heard:
    """A reporter for another thread or machine: its lines are kept until the run's own reporter gets them."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Nothing: several that tell how far they are at once can be read by nobody."""

    def stage_done(self, line: str) -> None:
        """Kept."""
        self.lines.append(("stage_done", line))

    def warn(self, text: str) -> None:
        """Kept."""
        self.lines.append(("warn", text))

    def tell(self, reporter: Reporter) -> None:
        """Give all lines on."""
        for kind, text in self.lines:
            (reporter.warn if kind == "warn" else reporter.stage_done)(text)
        self.lines.clear()


class Workers(Protocol):
    """Runs so many stages at once. To be used in a `with`: nothing that was begun outlives it."""

    @property
    def count(self) -> int:
        """How many stages run at once."""
        ...

    def submit(self, task: Task, context: Context) -> Future[Done]:
        """Begin it; its error is the future's where it is one of ours."""
        ...

    def finished(self, those: Collection[Future[Done]]) -> list[Future[Done]]:
        """Wait until at least one has ended, and tell what they had to say."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Begun:
    """What workers have begun and not told yet, with what each one had to say."""

    def __init__(self) -> None:
        self._begun: dict[Future[Done], tuple[Heard, Reporter]] = {}

    def finished(self, those: Collection[Future[Done]]) -> list[Future[Done]]:
        """Those that have ended, one at least."""
        ended = sorted(wait(those, return_when=FIRST_COMPLETED).done, key=list(those).index)
        for each in ended:
            if each in self._begun:
                told, reporter = self._begun.pop(each)
                told.tell(reporter)
        return ended

    def __enter__(self) -> Self:
        return self


class Here(Begun):
    """Workers of this machine."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=process.join, initargs=(self,)) if count > 1 else None

    def submit(self, task: Task, context: Context) -> Future[Done]:
        """Begin it; a worker that is alone does it at once."""
        if self._pool is None:
            return _done_now(task, context)
        told = Heard()
        future = self._pool.submit(run, task.stage, task.model, replace(context, reporter=told), label=task.label)
        self._begun[future] = told, context.reporter
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        left = set(self._begun)
        for each in left:
            each.cancel()
        # A worker may be about to start a child: until all have ended, whatever runs is ended.
        while wait(left, timeout=_A_MOMENT).not_done:
            process.end_running(self)
        self._pool.shutdown()


def _done_now(task: Task, context: Context) -> Future[Done]:
    future: Future[Done] = Future()
    try:
        future.set_result(run(task.stage, task.model, context, label=task.label))
    except MlpackError as error:
        future.set_exception(error)
    return future


def work_off(
    tasks: Iterable[tuple[Place, Task]],
    then: Callable[[Place, Future[Done], Task], Iterable[tuple[Place, Task]]],
    enough: Callable[[], bool],
    workers: Workers,
    context: Context,
) -> None:
    """Do these tasks, and those that `then` says follow from one that has ended, the lowest place first.

    As many run at once as there are workers; one worker does them in the order of their places. Once there is
    `enough`, none begins any more.
    """
    known: dict[Place, Task] = {}
    waiting: list[Place] = []

    def add(more: Iterable[tuple[Place, Task]]) -> None:
        for place, task in more:
            known[place] = task
            heappush(waiting, place)

    add(tasks)
    running: dict[Future[Done], Place] = {}
    while True:
        while waiting and len(running) < workers.count and not enough():
            place = heappop(waiting)
            running[workers.submit(known[place], context)] = place
        if not running:
            return
        for future in workers.finished(running):
            place = running.pop(future)
            add(then(place, future, known.pop(place)))
