"""Runtime: a server that runs models elsewhere; its package is a pure function of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Stored


class PackageOptions(Frozen):
    """What a serving package is tuned by."""

    max_batch: int = Field(default=8, ge=1, description="largest batch that the server may form")
    queue_delay_ms: float = Field(default=2.0, ge=0, description="longest wait for batch mates")
    instances: int = Field(default=1, ge=1, description="copies of the model that run side by side")
    fallback: str | None = Field(default=None, description="who serves the graph where no engine can be built")


class Runtime(Protocol):
    """One file per runtime, its templates, and one line in the table."""

    name: str
    title: str

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, str | bytes | Path]:
        """The package: content, or the file to copy, by relative path. Pure: writes nothing.

        Raises:
            UsageError: this runtime cannot serve this artifact; the hint says which can.
        """
        ...
