"""Deadline: when a search has to come to its end with the best that it has."""

from __future__ import annotations

import re
import time

from mlpack.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WRITTEN = r"(\d+(?:\.\d+)?)([smh])"


class Deadline:
    """So much time from now on; None: no end."""

    def __init__(self, limit: str | None) -> None:
        """Of a limit such as `90s`, `20m` or `1.5h`.

        Raises:
            UsageError: it is written otherwise.
        """
        self.limit = limit
        self._end = None if limit is None else time.monotonic() + seconds(limit)

    def over(self) -> bool:
        """Whether that time has passed."""
        return self._end is not None and time.monotonic() >= self._end


def seconds(limit: str) -> float:
    """A length of time such as `90s`, `20m` or `1.5h`.

    Raises:
        UsageError: it is written otherwise, or none at all.
    """
    found = re.fullmatch(_WRITTEN, limit.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{limit!r} is no length of time", "write it as 90s, 20m or 1.5h")
    return float(found[1]) * _UNITS[found[2]]
