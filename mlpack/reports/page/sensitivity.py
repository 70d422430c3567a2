"""What each layer costs in accuracy when it alone is quantized, and what it gains in time: what a search went by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Artifact


@dataclass(frozen=True)
class Layer:
    """A layer of the user's model. `sqnr` is that of the outputs in dB, None where nothing changes; times in ms."""

    name: str
    sqnr: float | None
    share: float
    before: float | None
    after: float | None
    floats: bool


def layers(artifact: Artifact, reports: Mapping[str, Mapping[str, Any]]) -> list[Layer]:
    """Every layer that was measured, the noisiest first; `floats`: it computes in float in the model that was made."""
    measured = reports.get("measure_sensitivity", {}).get("tables", {}).get("layers", ())
    times = {row["module"]: row for row in reports.get("time_layers", {}).get("tables", {}).get("modules", ())}
    made = artifact.model.quantization
    excluded = set(made.details.get("exclude") or ()) if made else set()
    ranked = sorted(measured, key=lambda row: -row["noise"])
    return [
        Layer(
            name=row["layer"],
            sqnr=-10 * math.log10(row["noise"]) if row["noise"] > 0 else None,
            share=row["share"],
            before=times.get(row["layer"], {}).get("before"),
            after=times.get(row["layer"], {}).get("after"),
            floats=not excluded.isdisjoint(row["nodes"]),
        )
        for row in ranked
    ]
