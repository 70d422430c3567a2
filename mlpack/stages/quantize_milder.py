"""Milder forms of an int8 or int4 that costs too much: corrections, training, then the fewest, cheapest layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from mlpack.core.stage import BEFORE

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from mlpack.core.report import Report
    from mlpack.stages.quantize import Quantize

# A layer gains at least so much of the whole, however the profiler times it: what is free is not infinitely cheap.
_LEAST_GAIN = 1e-3
_MOST_ATTEMPTS = 6
_MOST_SHARE = 0.5
_MILDEST = 1 / 64
_STEP = 4.0
# Noise of a hundredth of the outputs' power does not cost ten times what is allowed: the runtime computes something
# else than the graph says (OpenVINO 2026.4 on a quantized convolution before an LSTM), and no layer is to blame.
_LITTLE_NOISE = 0.01
_COLLAPSE = 10.0


@dataclass(frozen=True)
class Layer:
    """`nodes` that leave together; their `noise`, `gain` (ms, work where nothing was timed, or weights), `share`."""

    name: str
    nodes: tuple[str, ...]
    noise: float
    gain: float
    share: float


def milder(stage: Quantize, reports: Mapping[str, Report], excess: float) -> Generator[Quantize, float, None]:
    """Propose milder forms, as `_forms` has them, each that is trained in half of the time of the one before.

    So all of them take no longer than twice the first, and the same limit gives the same forms again.
    """
    forms = _forms(stage, reports, excess)
    seconds = stage.training.seconds
    if seconds is None:
        yield from forms
        return
    if stage.train == "always":
        seconds /= 2
    form = next(forms, None)
    while form is not None:
        if form.train == "always":
            form = form.model_copy(update={"training": form.training.model_copy(update={"seconds": seconds})})
            seconds /= 2
        reached = yield form
        try:
            form = forms.send(reached)
        except StopIteration:
            return


def _forms(stage: Quantize, reports: Mapping[str, Report], excess: float) -> Generator[Quantize, float, None]:
    """Propose milder forms, one at a time; each is answered with its drop over the allowed one (≤ 1: it holds).

    Noise adds up over layers (their noises sum to the whole's within a decibel on the sample models), and what
    flips answers grows with its amplitude: so a drop that is n times too large wants about n² times less noise. Layers
    leave in the order of noise per gain: int8 ones go back to float, which costs time, int4 ones to eight bits, which
    costs bytes. The first guess is followed by a harder one while none holds, and halved back once one does: a handful
    of evaluations.
    """
    collapsed = _COLLAPSE < excess < math.inf
    if collapsed and reports["measure_sensitivity"].metrics["noise"] < _LITTLE_NOISE:
        return
    four_bits = stage.numerics == "int4"
    measured = reports["measure_sensitivity"]
    layers = ranked_by_weights(measured) if four_bits else ranked(measured, reports.get("time_layers"))
    leaving = "wide" if four_bits else "exclude"
    tried = 0
    for better in (_corrections, _training):
        form = stage.model_copy(update=better(stage))
        if form == stage:
            continue
        reached = yield form
        tried += 1
        if reached <= 1:
            return
        if reached < excess:
            stage, excess = form, reached
    left = max(_MILDEST, min(0.5, 1 / excess**2)) if excess > 0 else 0.5
    most = sum(share <= _MOST_SHARE for share in accumulate(layer.share for layer in layers))
    few, many = 0, None
    while tried < _MOST_ATTEMPTS:
        count = _enough(layers, left) if many is None else (few + many) // 2
        count = min(max(count, few + 1), most)
        if count <= few or count == many:
            return
        nodes = tuple(node for layer in layers[:count] for node in layer.nodes)
        reached = yield stage.model_copy(update={leaving: (*getattr(stage, leaving), *nodes)})
        tried += 1
        if reached <= 1:
            many = count
        else:
            few, left = count, left / _STEP


def _corrections(stage: Quantize) -> dict[str, object]:
    """What costs no speed: ranges clipped by MSE, and the mean error of each channel taken off its bias."""
    if stage.method != "static":
        return {}
    clips = stage.ranges is None and stage.calibration_method == "minmax"
    return {"bias_correction": True, **({"calibration_method": "mse"} if clips else {})}


def _training(stage: Quantize) -> dict[str, object]:
    """What costs no speed either, where there is something to train on."""
    return {"train": "always"} if stage.train == "needed" and stage.method == "static" else {}


def ranked(sensitivity: Report, times: Report | None) -> list[Layer]:
    """The layers by noise per gain, the worst bargain first."""
    rows = sensitivity.tables["layers"]
    saved = {row["module"]: row[BEFORE] - row["after"] for row in times.tables["modules"]} if times else {}
    timed = [row for row in rows if row["layer"] in saved]
    # What the profiler cannot name gains in proportion to its work, as the named layers do.
    known = sum(row["share"] for row in timed)
    rate = sum(max(0.0, saved[row["layer"]]) for row in timed) / known if known else 1.0
    least = _LEAST_GAIN * (rate or 1.0)
    layers = [
        Layer(
            name=row["layer"],
            nodes=tuple(row["nodes"]),
            noise=row["noise"],
            gain=max(least, saved.get(row["layer"], row["share"] * rate)),
            share=row["share"],
        )
        for row in rows
    ]
    return sorted(layers, key=lambda layer: -layer.noise / layer.gain)


def ranked_by_weights(sensitivity: Report) -> list[Layer]:
    """The layers by noise per number that they keep, the worst bargain first."""
    layers = [
        Layer(row["layer"], tuple(row["nodes"]), row["noise"], gain=max(1, row["weights"]), share=row["share"])
        for row in sensitivity.tables["layers"]
    ]
    return sorted(layers, key=lambda layer: -layer.noise / layer.gain)


def _enough(layers: Sequence[Layer], left: float) -> int:
    """How many of the first layers have to leave for this share of the noise to be left."""
    allowed = left * sum(layer.noise for layer in layers)
    noise = sum(layer.noise for layer in layers)
    for count, layer in enumerate(layers):
        if noise <= allowed:
            return count
        noise -= layer.noise
    return len(layers)
