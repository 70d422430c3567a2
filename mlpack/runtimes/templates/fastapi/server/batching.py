"""Queues requests and runs those that fit together as one batch, in worker threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
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
    key: tuple[tuple[int, ...], ...]


class Batcher:
    """A bounded queue before one worker thread per model.

    A worker takes the oldest request, waits for batch mates until `queue_delay_ms` after its arrival, until
    `max_rows` are there or until others wait that fit with none of them, and runs them together. With
    `batching: apart` every request runs alone.

    Workers take from the queue themselves: between two batches a model does not wait for the event loop, which is
    busy with the answers of the first.
    """

    def __init__(self, models: Sequence[Model], limits: Limits, on_batch: Callable[[int], None]) -> None:
        self._models = models
        self._limits = limits
        self._on_batch = on_batch
        self._max_rows = limits.max_rows if limits.batching == "merged" and limits.max_rows else 1
        self._queue: deque[_Waiting] = deque()
        # Of the queue: the event loop puts in, the workers take out.
        self._changed = threading.Condition()
        self._refusing = False
        self._draining = False
        self._workers: list[threading.Thread] = []

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
        key = tuple(array.shape[1:] for array in inputs.values())
        waiting = _Waiting(inputs, rows, time.monotonic(), asyncio.get_running_loop().create_future(), key)
        # Only the event loop puts in, and nothing else of it ran since the check: the bound holds exactly.
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify_all()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            with self._changed, suppress(ValueError):
                self._queue.remove(waiting)
            raise

    def start(self) -> None:
        """Start the workers; needs a running event loop."""
        loop = asyncio.get_running_loop()
        # Daemons: a server that is told to end at once does not wait for a model that runs.
        self._workers = [
            threading.Thread(target=self._work, args=(model, loop), name=f"inference-{place}", daemon=True)
            for place, model in enumerate(self._models)
        ]
        for worker in self._workers:
            worker.start()

    def refuse(self) -> None:
        """Let no new request in from now on; those that were let in are still answered."""
        self._refusing = True

    async def drain(self) -> None:
        """Refuse new requests, answer all that wait, and stop the workers."""
        self._refusing = self._draining = True
        with self._changed:
            self._changed.notify_all()
        for worker in self._workers:
            await asyncio.to_thread(worker.join)

    def _check_room(self) -> None:
        if len(self._queue) >= self._limits.queue_capacity:
            raise QueueFull

    def _work(self, model: Model, loop: asyncio.AbstractEventLoop) -> None:
        while batch := self._next_batch():
            # Who has gone away meanwhile has no wish any more.
            wanted = [waiting for waiting in batch if not waiting.answer.done()]
            if wanted:
                self._on_batch(sum(waiting.rows for waiting in wanted))
                results = _run(model, wanted)
                loop.call_soon_threadsafe(_settle, wanted, results)

    def _next_batch(self) -> list[_Waiting]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._draining)
            if not self._queue:
                return []
            batch = [self._queue.popleft()]
            deadline = batch[0].arrived + self._limits.queue_delay_ms / 1000
            # What is left in the queue then fits with none of these: waiting would keep it waiting too.
            while not self._fill(batch) and not self._queue and not self._refusing:
                if not self._changed.wait(deadline - time.monotonic()):
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


def _run(model: Model, batch: list[_Waiting]) -> list[Answered | BaseException]:
    """What comes of each request of a batch."""
    names = batch[0].inputs
    merged = (
        batch[0].inputs
        if len(batch) == 1
        else {name: np.concatenate([waiting.inputs[name] for waiting in batch]) for name in names}
    )
    by_spare = model.first is None
    result, seconds = _call(model.session, merged)
    if isinstance(result, BaseException) and len(batch) > 1:
        # One bad request must not fail its batch mates.
        return [each for waiting in batch for each in _run(model, [waiting])]
    if isinstance(result, ModelFailed) and model.spare and not by_spare:
        by_spare = True
        result, seconds = _call(model.spare, merged)
    if isinstance(result, BaseException):
        return [result]
    parts = [result] if len(batch) == 1 else _split(result, [waiting.rows for waiting in batch])
    return [part if isinstance(part, BaseException) else Answered(part, seconds, by_spare) for part in parts]


def _call(session: Session, inputs: Arrays) -> tuple[Arrays | BaseException, float]:
    """What comes of a run, and how long it took."""
    started = time.perf_counter()
    try:
        result: Arrays | BaseException = session(inputs)
    except BaseException as error:  # noqa: BLE001 - it goes to the request that caused it: a worker outlives them all
        result = error
    return result, time.perf_counter() - started


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


def _settle(batch: list[_Waiting], results: list[Answered | BaseException]) -> None:
    """In the event loop: give each request what came of it."""
    for waiting, result in zip(batch, results, strict=True):
        # Done already when the client has gone away.
        if waiting.answer.done():
            continue
        if isinstance(result, BaseException):
            waiting.answer.set_exception(result)
        else:
            waiting.answer.set_result(result)
