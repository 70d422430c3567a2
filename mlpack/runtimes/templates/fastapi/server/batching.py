"""Queues requests and runs those that fit together as one batch, in worker threads."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .sessions import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .description import Limits
    from .sessions import Arrays, Model, Session


class QueueFull(Exception):
    """As many requests wait as the queue may hold."""


class Draining(Exception):
    """The server is shutting down and takes no new request."""


@dataclass(frozen=True)
class Answered:
    """The outputs of one request, how long the model ran for the batch that it was in, and whether it was the spare."""

    outputs: Arrays
    compute_seconds: float
    by_spare: bool = False


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A queued request. Only requests with the same `key` (all dims but the first) fit in one batch."""

    inputs: Arrays
    rows: int
    arrived: float
    answer: asyncio.Future[Answered]

    @property
    def key(self) -> tuple[tuple[int, ...], ...]:
        return tuple(array.shape[1:] for array in self.inputs.values())


class Batcher:
    """A bounded queue before one worker per model.

    A worker takes the oldest request, waits for batch mates until `queue_delay_ms` after its arrival, until
    `max_rows` are there or until others wait that fit with none of them, and runs them together. With
    `batching: apart` every request runs alone.
    """

    def __init__(self, models: Sequence[Model], limits: Limits, on_batch: Callable[[int], None]) -> None:
        self._models = models
        self._limits = limits
        self._on_batch = on_batch
        self._max_rows = limits.max_rows if limits.batching == "merged" and limits.max_rows else 1
        self._queue: deque[_Waiting] = deque()
        self._changed = asyncio.Condition()
        self._refusing = False
        self._draining = False
        self._threads = ThreadPoolExecutor(len(models), thread_name_prefix="inference")
        self._workers: list[asyncio.Task[None]] = []

    @property
    def depth(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server is shutting down."""
        return self._refusing

    def check_open(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            Draining: the server is shutting down.
            QueueFull: the queue is full.
        """
        if self._refusing:
            raise Draining
        self._check_room()

    async def answer(self, inputs: Arrays, rows: int) -> Answered:
        """Outputs for the inputs of one request of so many rows, which `check_open` has let in.

        Who is cancelled (too late, gone) leaves the queue at once.

        Raises:
            Draining: the workers are at their end. Until then a request that was let in is answered.
            QueueFull: the queue is full.
            ModelFailed: the backend refuses these inputs.
        """
        if self._draining:
            raise Draining
        self._check_room()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(inputs, rows, loop.time(), loop.create_future())
        # No await between the check and this line: the bound holds exactly.
        self._queue.append(waiting)
        try:
            async with self._changed:
                self._changed.notify_all()
            return await waiting.answer
        except asyncio.CancelledError:
            waiting.answer.cancel()
            with suppress(ValueError):
                self._queue.remove(waiting)
            raise

    def start(self) -> None:
        """Start the workers; needs a running event loop."""
        self._workers = [asyncio.create_task(self._work(model)) for model in self._models]

    def refuse(self) -> None:
        """Let no new request in from now on; those that were let in are still answered."""
        self._refusing = True

    async def drain(self) -> None:
        """Refuse new requests, answer all that wait, and stop the workers."""
        self._refusing = self._draining = True
        async with self._changed:
            self._changed.notify_all()
        await asyncio.gather(*self._workers)
        self._threads.shutdown()

    def _check_room(self) -> None:
        if len(self._queue) >= self._limits.queue_capacity:
            raise QueueFull

    async def _work(self, model: Model) -> None:
        while batch := await self._next_batch():
            wanted = [waiting for waiting in batch if not waiting.answer.done()]
            if wanted:
                self._on_batch(sum(waiting.rows for waiting in wanted))
                await self._run(model, wanted)

    async def _next_batch(self) -> list[_Waiting]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._queue or self._draining)
            if not self._queue:
                return []
            batch = [self._queue.popleft()]
            deadline = batch[0].arrived + self._limits.queue_delay_ms / 1000
            # What is left in the queue then fits with none of these: waiting would keep it waiting too.
            while not self._fill(batch) and not self._queue and not self._refusing:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._changed.wait()
                except TimeoutError:
                    self._fill(batch)
                    break
            return batch

    def _fill(self, batch: list[_Waiting]) -> bool:
        """Move what fits from the queue into the batch, oldest first; whether the batch is full then."""
        room = self._max_rows - sum(waiting.rows for waiting in batch)
        kept: deque[_Waiting] = deque()
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            if waiting.key == batch[0].key and waiting.rows <= room:
                batch.append(waiting)
                room -= waiting.rows
            else:
                kept.append(waiting)
        self._queue.extendleft(reversed(kept))
        return room <= 0

    async def _run(self, model: Model, batch: list[_Waiting]) -> None:
        names = batch[0].inputs
        merged = (
            batch[0].inputs
            if len(batch) == 1
            else {name: np.concatenate([waiting.inputs[name] for waiting in batch]) for name in names}
        )
        by_spare = model.first is None
        result, seconds = await self._call(model.session, merged)
        if isinstance(result, BaseException) and len(batch) > 1:
            # One bad request must not fail its batch mates.
            for waiting in batch:
                await self._run(model, [waiting])
            return
        if isinstance(result, ModelFailed) and model.spare and not by_spare:
            by_spare = True
            result, seconds = await self._call(model.spare, merged)
        if isinstance(result, BaseException):
            _settle(batch[0].answer, result)
            return
        parts = [result] if len(batch) == 1 else _split(result, [waiting.rows for waiting in batch])
        for waiting, part in zip(batch, parts, strict=True):
            _settle(waiting.answer, part if isinstance(part, BaseException) else Answered(part, seconds, by_spare))

    async def _call(self, session: Session, inputs: Arrays) -> tuple[Arrays | BaseException, float]:
        """What comes of a run, and how long it took."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        call = loop.run_in_executor(self._threads, session, inputs)
        # Every exception goes to the request that caused it: a worker must outlive them all.
        (result,) = await asyncio.gather(call, return_exceptions=True)
        return result, loop.time() - started


def _split(outputs: Arrays, rows: list[int]) -> list[Arrays | BaseException]:
    for name, array in outputs.items():
        if array.shape[:1] != (sum(rows),):
            mismatch = f"output {name!r} has shape {array.shape} for a batch of {sum(rows)} rows"
            return [RuntimeError(mismatch) for _ in rows]
    ends = list(accumulate(rows))
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends, rows, strict=True)
    ]


def _settle(answer: asyncio.Future[Answered], result: Answered | BaseException) -> None:
    # Done already when the client has gone away.
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)
