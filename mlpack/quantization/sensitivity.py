"""How much noise each layer's quantization brings into the model's outputs, when that layer alone is quantized."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.external_data import load_whole
from mlpack.quantization.shown import Arrays, showing
from mlpack.quantization.switched import Layer, switched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mlpack.core.stage import Say


@dataclass(frozen=True)
class Sensitivity:
    """`noise` is the power of what the outputs change by over their own, by layer; `whole` with all layers quantized.

    `nodes` are those of the float graph that a layer has.
    """

    noise: dict[str, float]
    nodes: dict[str, tuple[str, ...]]
    whole: float


def sensitivity(
    say: Say,
    before: Path,
    after: Path,
    named: Callable[[Sequence[str]], str],
    batches: Iterable[Arrays],
    threads: int,
) -> Sensitivity:
    """Run each batch once in float, once for each layer with that layer quantized, and once all quantized.

    `named` says which layer some nodes of the float graph, which are quantized together, belong to. Noise is averaged
    over the float outputs, each relative to its own power (SQNR: Jayant, Noll: Digital Coding of Waveforms, 1984).
    """
    graph, parts = switched(load_whole(before), load_whole(after))
    layers: dict[str, list[Layer]] = {}
    for part in parts:
        layers.setdefault(named(part.nodes), []).append(part)
    switches = [part.switch for part in parts]
    tried = {**{name: [part.switch for part in those] for name, those in layers.items()}, "": switches}
    outputs = [each.name for each in graph.graph.output]
    power, noise = dict.fromkeys(outputs, 0.0), {name: dict.fromkeys(outputs, 0.0) for name in tried}
    with tempfile.TemporaryDirectory() as folder:
        session = showing(graph, [], Path(folder) / "switched.onnx", threads, literal=True)

        def run(batch: Arrays, those: Sequence[str]) -> Arrays:
            feeds = {**batch, **{switch: np.array(switch in those) for switch in switches}}
            return dict(zip(outputs, session.run(outputs, feeds), strict=True))

        for number, batch in enumerate(batches):
            true = run(batch, ())
            for at, (name, those) in enumerate(tried.items()):
                say(f"quantizing one layer at a time, batch {number + 1}", at, len(tried))
                got = run(batch, those)
                for output in outputs:
                    if true[output].dtype.kind == "f":
                        noise[name][output] += _power(got[output] - true[output], true[output])
            for output in outputs:
                if true[output].dtype.kind == "f":
                    power[output] += _power(true[output], true[output])
    measured = [output for output in outputs if power[output]]

    def relative(name: str) -> float:
        return float(np.mean([noise[name][output] / power[output] for output in measured])) if measured else 0.0

    nodes = {name: tuple(node for part in those for node in part.nodes) for name, those in layers.items()}
    return Sensitivity({name: relative(name) for name in layers}, nodes, relative(""))


def _power(values: np.ndarray, true: np.ndarray) -> float:
    """Of the cells that the original has a number for."""
    known = values[np.isfinite(true)].astype(np.float64)
    return float(np.square(np.nan_to_num(known, nan=np.inf)).sum())
