"""How often one client may ask: a bucket of tokens per address, in a table that stays small."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 10_000


class TooOften(Exception):
    """The client has made more requests than it may; `seconds` until it may make the next one."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many requests from this address; the next one may come in {seconds} s")
        self.seconds = seconds


class RateLimit:
    """`per_second` requests of one client on average, and at once as many as in one second (at least one).

    The client that was seen longest ago is forgotten first: it starts again with a full bucket.
    """

    def __init__(
        self, per_second: float, clock: Callable[[], float] = time.monotonic, most_clients: int = _MOST_CLIENTS
    ) -> None:
        self._per_second = per_second
        self._full = max(1.0, per_second)
        self._clock = clock
        self._most_clients = most_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count a request.

        Raises:
            TooOften: it is one too many; it is not counted.
        """
        now = self._clock()
        left, seen = self._buckets.pop(client, (self._full, now))
        left = min(self._full, left + (now - seen) * self._per_second)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > self._most_clients:
            self._buckets.popitem(last=False)
        if not allowed:
            raise TooOften(math.ceil((1 - left) / self._per_second))
