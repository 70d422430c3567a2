"""Outputs kept in Redis, which servers of one artifact share; a Redis that is down costs nobody an answer."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, cast

import numpy as np
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .binary import written
from .cache import Unavailable
from .description import DATATYPES

if TYPE_CHECKING:
    from .description import Description
    from .sessions import Arrays

_PREFIX = b"mlpack:outputs:"
_LENGTH = 4
_KEPT_SECONDS = 24 * 3600
_CONNECTIONS = 16
# Longer than a Redis nearby ever takes, shorter than most models.
_WAIT_SECONDS = 0.25
# After a failure nobody waits for it for a while.
_PAUSE_SECONDS = 5.0


class RedisStore:
    """Entries live for a day; how much memory they may take is Redis's own setting, `maxmemory`."""

    def __init__(self, url: str, description: Description) -> None:
        self._datatypes = {tensor.name: tensor.datatype for tensor in description.outputs}
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_WAIT_SECONDS,
            socket_timeout=_WAIT_SECONDS,
            socket_connect_timeout=_WAIT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._paused_until = 0.0

    async def get(self, key: bytes) -> Arrays | None:
        """The outputs under a key, if they are those of this model."""
        self._check_pause()
        try:
            found = await self._redis.get(_PREFIX + key)
        except (RedisError, OSError) as error:
            raise self._failed(error) from error
        # Without `decode_responses` it is never text.
        return None if found is None else self._unpacked(cast("bytes", found))

    async def put(self, key: bytes, outputs: Arrays) -> None:
        """Keep outputs for a day."""
        self._check_pause()
        try:
            await self._redis.set(_PREFIX + key, self._packed(outputs), ex=_KEPT_SECONDS)
        except (RedisError, OSError) as error:
            raise self._failed(error) from error

    async def close(self) -> None:
        """Close its connections."""
        await self._redis.aclose()

    def _check_pause(self) -> None:
        if time.monotonic() < self._paused_until:
            raise Unavailable("Redis did not answer a moment ago")

    def _failed(self, error: Exception) -> Unavailable:
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        return Unavailable(f"Redis does not answer: {type(error).__name__}")

    def _packed(self, outputs: Arrays) -> bytes:
        head = json.dumps({name: array.shape for name, array in outputs.items()}).encode()
        tail = b"".join(written(array, self._datatypes[name]) for name, array in outputs.items())
        return len(head).to_bytes(_LENGTH, "little") + head + tail

    def _unpacked(self, raw: bytes) -> Arrays:
        """Outputs, none of which is believed to be one before it is known to be of its length."""
        start = _LENGTH + int.from_bytes(raw[:_LENGTH], "little")
        outputs: Arrays = {}
        try:
            for name, shape in json.loads(raw[_LENGTH:start]).items():
                dtype = DATATYPES[self._datatypes[name]].newbyteorder("<")
                end = start + math.prod(shape) * dtype.itemsize
                outputs[name] = np.frombuffer(raw[start:end], dtype).reshape(shape).copy()
                start = end
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable("what Redis has is no answer") from error
        if start != len(raw) or outputs.keys() != self._datatypes.keys():
            raise Unavailable("what Redis has is no answer of this model")
        return outputs
