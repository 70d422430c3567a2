"""What training did, in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlpack.core.wording import count, number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def trained_line(metrics: Mapping[str, Any]) -> str:
    """How right it is on rows held out of training, before and after, and what it took."""
    before, after = metrics["held_out_right"]
    what = {"labels": "right", "teacher": "answered as the original", None: ""}[metrics["right_is"]]
    if before is None or after is None:
        before, after = metrics["held_out_loss"]
        told = f"held-out loss {number(before)} → {number(after)}"
    else:
        told = f"{before:.1%} → {after:.1%} of {count(metrics['rows_held_out'], 'held-out row')} {what}"
    return (
        f"{told}, after {count(metrics['best_step'], 'step')} of {metrics['steps']:,} on {metrics['rows']:,} rows, "
        f"{metrics['seconds']:.0f} s (ended: {metrics['stopped']})"
    )


def trained_of(artifact: Path) -> dict[str, Any] | None:
    """The metrics of an artifact's training; None where nothing was trained."""
    return _metrics(artifact, "distill")


def int8_trained_of(artifact: Path) -> dict[str, Any] | None:
    """Those of the training of its int8 graph; None where that was not trained."""
    found = _metrics(artifact, "quantize") or {}
    training: dict[str, Any] | None = found.get("training")
    return training


def _metrics(artifact: Path, stage: str) -> dict[str, Any] | None:
    file = artifact / "reports" / f"{stage}.json"
    metrics: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8"))["metrics"] if file.is_file() else None
    return metrics
