"""Context: what is the same for every stage of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.dataset import DataRef, Part
    from mlpack.core.model import Model
    from mlpack.core.reporter import Reporter
    from mlpack.core.target import Target


@dataclass(frozen=True)
class Context:
    """Cache folder, target, threads, seed, data and baseline of one run.

    `parts` has the fingerprint of each part of the data. `fresh` redoes what the cache has.
    """

    cache: Path
    target: Target
    threads: int
    seed: int
    reporter: Reporter
    data: DataRef | None = None
    parts: dict[Part, str] = field(default_factory=dict)
    baseline: Model | None = None
    fresh: bool = False

    def part_fingerprint(self, part: Part) -> str | None:
        """The fingerprint of a part of the data; None where there is no data."""
        return self.parts.get(part)
