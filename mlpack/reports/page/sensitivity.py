"""What each layer costs in accuracy when it alone is quantized, and what it gains in time: what a search went by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlpack.core.artifact import Artifact


@dataclass(frozen=True)
class Layer:
    """A layer of the user's model. `sqnr` is that of the outputs in dB, None where nothing changes; times in ms.

    `numerics` are those that it runs in, `spared` whether they are others than the model's, for its accuracy's sake.
    """

    name: str
    sqnr: float | None
    share: float
    before: float | None
    after: float | None
    numerics: str
    spared: bool


def layers(artifact: Artifact, reports: Mapping[str, Mapping[str, Any]]) -> list[Layer]:
    """Every layer that was measured, the noisiest first."""
    measured = reports.get("measure_sensitivity", {}).get("tables", {}).get("layers", ())
    times = {row["module"]: row for row in reports.get("time_layers", {}).get("tables", {}).get("modules", ())}
    made = artifact.model.quantization
    excluded, wide = (set(made.details.get(each) or ()) if made else set() for each in ("exclude", "wide"))

    def numerics(nodes: Iterable[str]) -> str:
        if not excluded.isdisjoint(nodes):
            return "float"
        return "int8" if not wide.isdisjoint(nodes) else artifact.model.numerics

    ranked = sorted(measured, key=lambda row: -row["noise"])
    return [
        Layer(
            name=row["layer"],
            sqnr=-10 * math.log10(row["noise"]) if row["noise"] > 0 else None,
            share=row["share"],
            before=times.get(row["layer"], {}).get("before"),
            after=times.get(row["layer"], {}).get("after"),
            numerics=numerics(row["nodes"]),
            spared=numerics(row["nodes"]) != artifact.model.numerics,
        )
        for row in ranked
    ]
