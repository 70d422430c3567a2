"""Keeps the model's outputs for inputs that come again, bit for bit the same, to the same artifact."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .description import Description
    from .metrics import Metrics
    from .sessions import Arrays
    from .settings import Settings

# What an entry costs besides its values: keys, array objects, the table's own.
_ENTRY_BYTES = 512


class Unavailable(Exception):
    """The place where answers are kept cannot be asked now."""


class Store(Protocol):
    """Where outputs lie."""

    async def get(self, key: bytes) -> Arrays | None:
        """The outputs under a key; None where there are none.

        Raises:
            Unavailable: nobody knows.
        """
        ...

    async def put(self, key: bytes, outputs: Arrays) -> None:
        """Keep outputs as long as there is room.

        Raises:
            Unavailable: they are not kept.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class Cache:
    """A store, and what is counted of it. Whatever happens to the store, a request is answered."""

    def __init__(self, store: Store, digest: str, metrics: Metrics) -> None:
        self._store = store
        self._digest = digest
        self._metrics = metrics

    def key(self, inputs: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> bytes:
        """A digest of the artifact's own, and of names, datatypes, shapes and values."""
        digest = hashlib.sha256(self._digest.encode())
        for name in sorted(inputs):
            array = inputs[name]
            digest.update(repr((name, array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.digest()

    async def get(self, key: bytes) -> Arrays | None:
        """Outputs that were kept."""
        try:
            found = await self._store.get(key)
        except Unavailable:
            self._metrics.cache_requests.labels("error").inc()
            return None
        self._metrics.cache_requests.labels("miss" if found is None else "hit").inc()
        return found

    async def put(self, key: bytes, outputs: Arrays) -> None:
        """Keep outputs, if that is possible."""
        try:
            await self._store.put(key, outputs)
        except Unavailable:
            self._metrics.cache_requests.labels("error").inc()

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()


class MemoryStore:
    """In this process: what was asked for longest ago goes first when there is no room."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, Arrays] = OrderedDict()
        self.size_bytes = 0

    async def get(self, key: bytes) -> Arrays | None:
        """Copies: what a user's own function does to its outputs stays its own."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return {name: array.copy() for name, array in found.items()}

    async def put(self, key: bytes, outputs: Arrays) -> None:
        """Keep copies: outputs may be parts of a whole batch's, which they would hold in memory."""
        size = _size(outputs)
        if size > self._most_bytes or key in self._kept:
            return
        self._kept[key] = {name: np.array(array) for name, array in outputs.items()}
        self.size_bytes += size
        while self.size_bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.size_bytes -= _size(oldest)

    async def close(self) -> None:
        """Nothing to let go of."""


def open_cache(description: Description, settings: Settings, metrics: Metrics) -> Cache | None:
    """The cache that the package was made with; None where it was made without one."""
    if description.cache is None:
        return None
    store: Store
    if description.cache.store == "redis":
        from .redis_store import RedisStore

        assert settings.redis_url is not None
        store = RedisStore(settings.redis_url, description)
    else:
        memory = store = MemoryStore(description.cache.size_bytes)
        metrics.cache_bytes.set_function(lambda: memory.size_bytes)
    return Cache(store, description.digest, metrics)


def _size(outputs: Arrays) -> int:
    return _ENTRY_BYTES + sum(array.nbytes for array in outputs.values())
