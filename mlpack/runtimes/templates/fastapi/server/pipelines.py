"""What happens before and after the model, in threads of its own: `pipeline/`, run by `server/pipeline/`."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .batching import QueueFull
from .sessions import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .description import Description
    from .sessions import Arrays

Columns = dict[str, list[Any]]
# What finishes a request goes before what begins one: the model has run for it already.
_FINISH, _PREPARE = 0, 1


class BadSample(Exception):
    """A raw sample that the pipeline cannot take; the message says which and why."""


class AnswerFailed(Exception):
    """The pipeline cannot make an answer of the model's outputs."""


@dataclass(frozen=True)
class _Job:
    work: Callable[[Any], Any]
    done: asyncio.Future[tuple[Any, float]]


class Pipelines:
    """One loaded pipeline per worker: a tokenizer, or a user's own function, may not stand two callers at once."""

    def __init__(self, package: Path, description: Description) -> None:
        # The model's threads were measured; a tokenizer with as many as there are CPUs would get in their way.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        code = import_module(".pipeline", __package__)
        self._error: type[Exception] = code.PipelineError
        self._packed: Callable[[str, str, list[Any]], list[Any]] = code.packed
        self._description = description
        try:
            self._pipelines = [code.Pipeline.load(package / "pipeline") for _ in range(description.limits.instances)]
        except self._error as error:
            raise ModelFailed(str(error)) from error
        self._threads = ThreadPoolExecutor(len(self._pipelines), thread_name_prefix="pipeline")
        self._queue: asyncio.PriorityQueue[tuple[int, int, _Job]] = asyncio.PriorityQueue()
        self._workers: list[asyncio.Task[None]] = []
        self._asked = 0
        self._waiting = 0

    @property
    def depth(self) -> int:
        """How many requests wait to be prepared, or are."""
        return self._waiting

    def start(self) -> None:
        """Start the workers; needs a running event loop."""
        self._workers = [asyncio.create_task(self._work(pipeline)) for pipeline in self._pipelines]

    def stop(self) -> None:
        """Stop the workers; nothing may wait any more."""
        for worker in self._workers:
            worker.cancel()
        self._threads.shutdown()

    def check_open(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            QueueFull: as many wait to be prepared as may.
        """
        if self._waiting >= self._description.limits.queue_capacity:
            raise QueueFull

    async def prepare(self, samples: Mapping[str, list[Any]]) -> tuple[Arrays, float]:
        """The model's inputs for raw samples, and the seconds that they took.

        Raises:
            QueueFull: as above.
            BadSample: one cannot be taken.
        """
        self.check_open()
        self._waiting += 1
        try:
            return await self._call(_PREPARE, lambda pipeline: pipeline.prepare(samples))
        except self._error as error:
            raise BadSample(_which(error, len(next(iter(samples.values()))))) from error
        finally:
            self._waiting -= 1

    async def finish(self, outputs: Arrays, samples: Mapping[str, list[Any]]) -> tuple[Columns, float]:
        """The columns that the pipeline makes of the model's outputs, and the seconds that they took.

        Raises:
            AnswerFailed: the outputs are not what it was made for.
        """
        try:
            return await self._call(_FINISH, lambda pipeline: pipeline.finish(outputs, samples))
        except self._error as error:
            raise AnswerFailed(str(error)) from error

    def packed(self, columns: Columns) -> Columns:
        """Columns as tensors of the datatypes that the package promises.

        Raises:
            AnswerFailed: a value is nothing that its datatype can hold.
        """
        raw = self._description.raw
        assert raw is not None
        try:
            return {name: self._packed(name, raw.columns[name], values) for name, values in columns.items()}
        except self._error as error:
            raise AnswerFailed(str(error)) from error

    async def _call(self, turn: int, work: Callable[[Any], Any]) -> tuple[Any, float]:
        self._asked += 1
        job = _Job(work, asyncio.get_running_loop().create_future())
        # The running number keeps the order, and jobs themselves from being compared.
        self._queue.put_nowait((turn, self._asked, job))
        return await job.done

    async def _work(self, pipeline: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            _, _, job = await self._queue.get()
            if job.done.done():
                continue
            call = loop.run_in_executor(self._threads, _timed, job.work, pipeline)
            # Every exception goes to the request that caused it: a worker must outlive them all.
            results: list[Any] = await asyncio.gather(call, return_exceptions=True)
            if job.done.done():
                continue
            if isinstance(results[0], BaseException):
                job.done.set_exception(results[0])
            else:
                job.done.set_result(results[0])


def _timed(work: Callable[[Any], Any], pipeline: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(pipeline), time.perf_counter() - started


def _which(error: Exception, samples: int) -> str:
    row = getattr(error, "row", None)
    return str(error) if row is None or samples == 1 else f"sample {row + 1} of {samples}: {error}"
