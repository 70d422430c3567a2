"""What to try next with an artifact: one command, and the measurement that speaks for it."""

from __future__ import annotations

import shlex
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.core.artifact import Artifact, Stored

# An outlier among the layers, in dB below their median: a tenth of the signal's power over noise.
_FAR_BELOW_DB = 10.0
_MOST_EXCLUDED = 3
_QUANTIZING = "quantize/dequantize"
_MUCH = 0.10


class LayerError(Frozen):
    """What quantizing cost at one layer: SQNR in dB of the layer alone, and with the noise of all before it."""

    layer: str
    module: str
    operator: str
    weighted: bool
    after: tuple[str, ...] = Field(description="the nearest layers with weights whose results it reads")
    own_sqnr: float
    sqnr: float | None = Field(description="None: the noise before it does not reach it")


@dataclass(frozen=True)
class Advice:
    """One command to try, and why."""

    command: str
    why: str


def advice(stored: Stored, layers: Sequence[LayerError]) -> Advice:
    """What to try, given what quantizing cost at each layer: for accuracy where it is in doubt, else for time."""
    this = stored.artifact
    again = _Again(stored)
    unjudged_drop = this.accuracy.verdict == "none" and (this.accuracy.drop or 0.0) > 0
    in_doubt = unjudged_drop or this.accuracy.verdict in {"fail", "inconclusive", "likely"}
    if layers and in_doubt and this.model.quantization is not None:
        return _for_accuracy(this, again, layers)
    return _for_time(this, again)


class _Again:
    """The command that makes the artifact again, with something set otherwise."""

    def __init__(self, stored: Stored) -> None:
        self._recipe = str(stored.path / "recipe.yaml")

    def __call__(self, **changed: str) -> str:
        settings = [part for option, value in changed.items() for part in ("--set", f"quantize.{option}={value}")]
        return shlex.join(["mlpack", "optimize", self._recipe, *settings])


def _for_accuracy(this: Artifact, again: _Again, layers: Sequence[LayerError]) -> Advice:
    made = this.model.quantization
    assert made is not None
    usual = statistics.median(each.own_sqnr for each in layers)
    outliers = sorted(
        (each for each in layers if each.own_sqnr < usual - _FAR_BELOW_DB), key=lambda each: each.own_sqnr
    )
    details = made.details
    same = {"method": made.method} | ({"operators": str(details["operators"])} if made.method == "static" else {})
    if outliers:
        left_out = dict.fromkeys([*details.get("exclude", ()), *_to_exclude(outliers, made.method)])
        worst = outliers[0]
        return Advice(
            command=again(**same, exclude=f"[{', '.join(left_out)}]"),
            why=f"{worst.module or worst.layer} alone has {worst.own_sqnr:.1f} dB, the layers' median is "
            f"{usual:.1f} dB: leave in float what is far below",
        )
    if made.method == "dynamic":
        return Advice(again(method="static", operators="weighted"), "no layer stands out: try calibrated ranges")
    if details.get("operators") == "all":
        return Advice(again(method="static", operators="weighted"), "no layer stands out: quantize fewer operators")
    if details.get("calibration_method") == "minmax":
        return Advice(
            again(**same, calibration_method="percentile"), "no layer stands out: cut the ranges' outliers off"
        )
    return Advice(again(method="dynamic"), "no layer stands out: take ranges from each batch as it comes")


def _to_exclude(outliers: Sequence[LayerError], method: str) -> list[str]:
    """The noisiest layers that are quantized themselves; static graphs quantize results too: then those before them."""
    found: dict[str, None] = {}
    for each in outliers[:_MOST_EXCLUDED]:
        if each.weighted:
            found[each.module or each.layer] = None
        if method == "static":
            found |= dict.fromkeys(layer.partition("/")[0] for layer in each.after)
    return list(found)


def _for_time(this: Artifact, again: _Again) -> Advice:
    named = f"{this.name}@{this.version}"
    quantizing = next((each.share for each in this.components if each.name == _QUANTIZING), 0.0)
    if quantizing > _MUCH and this.model.quantization is not None and this.model.quantization.method == "static":
        return Advice(
            again(method="static", operators="all"),
            f"{quantizing:.0%} of a request is quantizing and dequantizing: more operators in int8 need less of it",
        )
    return Advice(f"mlpack bench {named} --sweep", "see which batch size gives the most samples a second")
