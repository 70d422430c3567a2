"""Runtime: a server that runs models elsewhere; its package is a pure function of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from mlpack.core.artifact import Stored
from mlpack.core.words import Frozen


class PackageOptions(Frozen):
    """What a serving package is tuned by. A runtime refuses those that mean nothing to its server."""

    max_batch: int = Field(default=8, ge=1, description="largest batch that the server may form")
    queue_delay_ms: float = Field(default=2.0, ge=0, allow_inf_nan=False, description="longest wait for batch mates")
    instances: int = Field(default=1, ge=1, description="copies of the model that run side by side")
    timeout_ms: float = Field(
        default=20_000.0, gt=0, allow_inf_nan=False, description="longest time from a request to its answer"
    )
    access: Literal["open", "token"] = Field(default="open", description="who may ask: all, or who has the token")
    rate_limit: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="requests per second of one client; None: as many as fit"
    )
    cache: Literal["none", "memory", "redis"] = Field(
        default="none", description="where answers are kept for requests that come again"
    )
    cache_mb: int = Field(default=64, ge=1, description="size of the cache in memory")
    fallback: Stored | None = Field(default=None, description="the artifact that answers where this one fails")
    traces: Literal["none", "otlp"] = Field(default="none", description="how the course of requests is reported")


class Runtime(Protocol):
    """One file per runtime, its templates, and one line in the table."""

    name: str
    title: str

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, str | bytes | Path]:
        """The package: content, or the file to copy, by relative path. Pure: writes nothing.

        Raises:
            UsageError: this runtime cannot serve this artifact, or not with these options; the hint says which can.
        """
        ...
