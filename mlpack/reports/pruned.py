"""What pruning took, in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MILLION = 1e6


def pruned_line(metrics: Mapping[str, Any]) -> str:
    """How much of the original's work and size is gone, or how many of its weights are zeros."""
    if "zeros" in metrics:
        return f"{metrics['zeros']:.1%} of the weights that are multiplied are zeros"
    before, after = (metrics[f"parameters_{when}"] for when in ("before", "after"))
    return (
        f"{metrics['flops_gone']:.1%} of the FLOPs ({_millions(metrics['flops_before'])} → "
        f"{_millions(metrics['flops_after'])}) and {1 - after / before:.1%} of the parameters ({_millions(before)} → "
        f"{_millions(after)}) are gone"
    )


def _millions(count: float) -> str:
    return f"{count / _MILLION:,.4g} million"


def pruned_of(artifact: Path) -> dict[str, Any] | None:
    """The metrics of an artifact's pruning; None where it was not pruned."""
    file = artifact / "reports" / "prune.json"
    metrics: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8"))["metrics"] if file.is_file() else None
    return metrics
