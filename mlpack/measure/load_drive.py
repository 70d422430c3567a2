"""Sends requests: in a closed loop, or at the times of a schedule whatever the server does."""

from __future__ import annotations

import asyncio
import gc
import itertools
import selectors
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mlpack.measure.clients.client import Failed, TooLate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    import numpy as np

    from mlpack.measure.clients.client import Client

    Ask = Callable[[float | None], Awaitable["Answer"]]

T = TypeVar("T")
MOST_CONNECTIONS = 256
"""The most requests of an open loop that are under way at once; one more waits, and is said to have waited."""
_START_S = 0.02
_GRACE_S = 0.1
"""How long after the end of an open loop what was due may still be sent."""


@dataclass(frozen=True)
class Answer:
    """One request, in seconds of one clock: when it was due, sent, and over. `error`: why it has no good answer.

    `late`: it was given up after the longest time that a request may take.
    """

    due: float
    sent: float
    done: float
    error: str | None = None
    late: bool = False


@dataclass(frozen=True)
class Drive:
    """What came of one run after its warm-up. `waited`: how many requests found all connections busy.

    `unsent`: how many were due and had still not been sent when the time was over.
    """

    start: float
    seconds: float
    answers: tuple[Answer, ...]
    waited: int = 0
    unsent: int = 0


class Asking:
    """Asks one server one request after the other, in turns; `due` None means now."""

    def __init__(self, client: Client, requests: Sequence[Any], outputs: tuple[str, ...]) -> None:
        self._client = client
        self._requests = itertools.cycle(requests)
        self._outputs = outputs

    async def __call__(self, due: float | None = None) -> Answer:
        """Send the next request and look at its answer; the clock stops before that look."""
        request = next(self._requests)
        sent = time.perf_counter()
        try:
            answer = await self._client.send(request)
        except Failed as failed:
            done = time.perf_counter()
            return Answer(sent if due is None else due, sent, done, str(failed), late=isinstance(failed, TooLate))
        done = time.perf_counter()
        return Answer(sent if due is None else due, sent, done, self._client.wrong(answer, self._outputs))


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in an event loop that wakes up in time, in a thread of its own.

    asyncio's default waits in epoll, which rounds up to whole milliseconds: requests would be sent up to one too
    late. select() waits in microseconds; its limit of 1024 files lies above `MOST_CONNECTIONS`. The caller's thread
    may have a loop already, as in notebooks; and a signal's exception, raised there, is not lost in a callback. What is
    loaded is left out of collections meanwhile: a look at all of it takes 100 ms, which would be the server's.
    """
    loop: Future[asyncio.AbstractEventLoop] = Future()

    def there() -> T:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
            loop.set_result(runner.get_loop())
            return runner.run(main())

    gc.collect()
    gc.freeze()
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(there)
        try:
            return done.result()
        except BaseException:
            if not done.done():
                loop.result().call_soon_threadsafe(_cancel_all)
            raise
        finally:
            gc.unfreeze()


def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


async def closed_loop(ask: Ask, clients: int, seconds: float, warm_up_s: float) -> Drive:
    """`clients` that each send the next request when the last one is answered; what the warm-up sent is left out."""
    start = time.perf_counter() + warm_up_s
    answers: list[Answer] = []

    async def client() -> None:
        while time.perf_counter() < start + seconds:
            answer = await ask(None)
            if answer.sent >= start:
                answers.append(answer)

    await asyncio.gather(*(client() for _ in range(clients)))
    return Drive(start, seconds, tuple(answers))


async def open_loop(
    ask: Ask,
    times: np.ndarray,
    seconds: float,
    warm_up_s: float,
    most: int = MOST_CONNECTIONS,
) -> Drive:
    """A request at each of `times` (seconds, ascending) without waiting for an earlier one.

    Those before `warm_up_s` are sent and left out; the run ends at `warm_up_s + seconds`. A request is counted from
    the time at which it was due, so a server that stalls is charged for all that should have come meanwhile.

    Source: Gil Tene, How NOT to Measure Latency (2013): coordinated omission.
    """
    begin = time.perf_counter() + _START_S
    start, end = begin + warm_up_s, begin + warm_up_s + seconds
    free = asyncio.Semaphore(most)
    answers: list[Answer] = []
    waited = unsent = 0

    async def send(due: float) -> None:
        nonlocal waited, unsent
        waited += free.locked() and due >= start
        async with free:
            if time.perf_counter() > end + _GRACE_S:
                unsent += due >= start
                return
            answer = await ask(due)
        if due >= start:
            answers.append(answer)

    async with asyncio.TaskGroup() as group:
        for due in begin + times:
            # Even where it is late already: without this turn of the loop no answer would be read.
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(send(float(due)))
    return Drive(start, seconds, tuple(answers), waited, unsent)
