"""An ideal server: no HTTP, no event loop, no waiting for mates, only a queue before a model of measured speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


def queue(arrivals: np.ndarray, service: Mapping[int, np.ndarray], seed: int) -> tuple[np.ndarray, list[int]]:
    """Seconds of each request, in the order of `arrivals` (seconds, ascending), and the batch sizes in turn.

    Whenever the model is free it takes all that wait, up to the largest batch in `service`, which has measured seconds
    of calls by batch size; each run takes one of those, drawn.
    """
    draw = np.random.default_rng(seed)
    most = max(service)
    found = np.empty(len(arrivals))
    sizes: list[int] = []
    free, first = 0.0, 0
    while first < len(arrivals):
        begin = max(free, float(arrivals[first]))
        waiting = int(np.searchsorted(arrivals, begin, side="right")) - first
        taken = slice(first, first + min(most, waiting))
        free = begin + float(draw.choice(service[taken.stop - first]))
        found[taken] = free - arrivals[taken]
        sizes.append(taken.stop - first)
        first = taken.stop
    return found, sizes
