"""What a training did: what it reached, how long it took, what ended it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Stopped = Literal["all epochs", "no better for long", "seconds"]


@dataclass
class History:
    """What training did: a row for each evaluation, the first before any step."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    stopped: Stopped = "all epochs"
    batch_norm: Literal["train", "frozen"] = "train"
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    learnt: int = 0
    held_out: int = 0
