"""How much noise quantization adds, layer by layer: the quantized graph beside the one that it was made from."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from mlpack.core.external_data import load_whole
from mlpack.quantization.shown import Arrays, showing, tensors_of
from mlpack.quantization.switched import settled

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import onnxruntime as ort

    from mlpack.core.stage import Say

_TRUE = "@true"
_WHOLE = "@true quantized"
# Float32 kernels that sum in another order agree to 120 dB; fp16 has 65 dB.
_ROUNDING_DB = 100.0


def layer_errors(say: Say, reference: str, quantized: str, inputs: str, step: int, threads: int) -> dict[str, Any]:
    """SQNR of every layer that both graphs have, in dB, in the order of the graph.

    `sqnr` is that of the layer's result in the quantized graph: the noise of all before it too. `own_sqnr` is that of
    the layer alone, when it is given what the original computes. Layers that add no noise are left out; `outputs`
    has the SQNR of the model's outputs. `after` names the nearest layers with weights whose results the layer reads:
    what a quantizer does to their results, it is the layer that feels it. The rows of `inputs`, an .npz, are run
    `step` at a time.

    SQNR is 10 log10 of the power of the signal over that of the difference (Jayant, Noll: Digital Coding of
    Waveforms, 1984).
    """
    rows = dict(np.load(inputs))
    before, after = load_whole(Path(reference)), load_whole(Path(quantized))
    makers = {tensor: node for node in before.graph.node for tensor in node.output if tensor}
    remade = {tensor for node in after.graph.node for tensor in node.output}
    shared = [tensor for tensor in makers if tensor in remade]
    outputs = [output.name for output in after.graph.output]
    seen = settled(after)
    results = [seen.get(tensor, tensor) for tensor in shared]
    count = len(next(iter(rows.values())))
    noise, weights = _Noise(), _Weights(before, makers)
    with tempfile.TemporaryDirectory() as folder:
        one = showing(before, shared, Path(folder) / "before.onnx", threads)
        two = showing(after, results, Path(folder) / "after.onnx", threads)
        alone: ort.InferenceSession | None = None
        for start in range(0, count - step + 1, step):
            say("running both graphs", start, count)
            feeds = {name: array[start : start + step] for name, array in rows.items()}
            true = tensors_of(one, shared, feeds)
            got = _by_tensor(shared, results, tensors_of(two, results, feeds))
            floats = [tensor for tensor in shared if true[tensor].dtype.kind == "f"]
            if alone is None:
                kinds = {tensor: got[tensor].dtype for tensor in floats}
                made = [seen.get(tensor, tensor) for tensor in floats]
                _cut(after, kinds, seen)
                alone = showing(after, made, Path(folder) / "alone.onnx", threads)
            wanted = {each.name for each in alone.get_inputs()}
            given = {**feeds, **{tensor + _TRUE: true[tensor].astype(kinds[tensor]) for tensor in floats}}
            own = _by_tensor(
                floats, made, tensors_of(alone, made, {name: array for name, array in given.items() if name in wanted})
            )
            for tensor in floats:
                noise.add(tensor, true[tensor], got[tensor], own[tensor])
    nodes = {tensor: weights.giving(tensor, remade) for tensor in shared}
    layers = [
        {
            "layer": nodes[tensor].name,
            "operator": nodes[tensor].op_type,
            "weighted": weights.of(nodes[tensor]),
            "after": weights.before(nodes[tensor]),
            "sqnr": noise.reached(tensor),
            "own_sqnr": noise.own(tensor),
        }
        for tensor in shared
        if noise.own(tensor) is not None
    ]
    return {
        "layers": layers,
        "outputs": {name: noise.reached(name) for name in outputs if name in noise.signal},
        "samples": count,
    }


class _Weights:
    """Which nodes have weights, and which such nodes come before a node."""

    def __init__(self, graph: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto]) -> None:
        self._matrices = {each.name for each in graph.graph.initializer if len(each.dims) > 1}
        self._makers = makers

    def of(self, node: onnx.NodeProto) -> bool:
        """Whether it multiplies with, or looks up in, a matrix of the model's."""
        return any(name in self._matrices for name in node.input)

    def giving(self, tensor: str, remade: Collection[str]) -> onnx.NodeProto:
        """The node that a tensor is the result of; where its activation is no node any more, the one before that."""
        node = self._makers[tensor]
        inner = node
        while not self.of(inner) and inner.input and inner.input[0] in self._makers and inner.input[0] not in remade:
            inner = self._makers[inner.input[0]]
        return inner if self.of(inner) else node

    def before(self, node: onnx.NodeProto) -> list[str]:
        """The nearest ones upstream, by name."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        waiting = list(node.input)
        while waiting:
            tensor = waiting.pop()
            maker = self._makers.get(tensor)
            if maker is None or tensor in seen:
                continue
            seen.add(tensor)
            if self.of(maker):
                found[maker.name] = None
            else:
                waiting.extend(maker.input)
        return list(found)


class _Noise:
    """Sums of squares by tensor: of the true values, and of what the graph and each layer alone differ by."""

    def __init__(self) -> None:
        self.signal: dict[str, float] = {}
        self._reached: dict[str, float] = {}
        self._own: dict[str, float] = {}

    def add(self, tensor: str, true: np.ndarray, got: np.ndarray, own: np.ndarray) -> None:
        """What one step gave; cells that the original itself has no number for do not count."""
        known = true.astype(np.float64)
        finite = np.isfinite(known)
        known = known[finite]
        for sums, values in (
            (self.signal, known),
            (self._reached, known - got.astype(np.float64)[finite]),
            (self._own, known - own.astype(np.float64)[finite]),
        ):
            sums[tensor] = sums.get(tensor, 0.0) + float(np.square(values).sum())

    def reached(self, tensor: str) -> float | None:
        """The SQNR in the quantized graph; None: it adds none beyond rounding."""
        return _decibels(self.signal[tensor], self._reached[tensor])

    def own(self, tensor: str) -> float | None:
        """The SQNR of the layer alone; None: it adds none beyond rounding."""
        return _decibels(self.signal.get(tensor, 0.0), self._own.get(tensor, 0.0))


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0 or signal == 0:
        return None
    if not math.isfinite(noise):
        return -math.inf
    ratio = 10 * math.log10(signal / noise)
    return ratio if ratio < _ROUNDING_DB else None


def _by_tensor(tensors: Sequence[str], results: Sequence[str], values: Arrays) -> Arrays:
    return {tensor: values[result] for tensor, result in zip(tensors, results, strict=True)}


def _cut(graph: onnx.ModelProto, kinds: Mapping[str, np.dtype[Any]], seen: Mapping[str, str]) -> None:
    """Every layer reads what the original computes, as an input of the graph, in place of what came before it.

    What is `seen` of a tensor through a pair of QuantizeLinear and DequantizeLinear is a result of the layer before
    it; a pair of its own gives it to the layer after it.
    """
    quantizers = {node.input[0]: node for node in graph.graph.node if node.input and node.input[0] in seen}
    dequantizers = {node.output[0]: node for node in graph.graph.node if node.output}
    pairs: list[onnx.NodeProto] = []
    reread = {}
    for tensor, result in seen.items():
        if tensor not in kinds:
            continue
        for node, source in ((quantizers[tensor], tensor + _TRUE), (dequantizers[result], tensor + _WHOLE)):
            own = onnx.NodeProto()
            own.CopyFrom(node)
            own.name += _TRUE
            own.input[0] = source
            own.output[0] = tensor + _WHOLE if node is quantizers[tensor] else result + _TRUE
            pairs.append(own)
        reread[result] = result + _TRUE
    settling = {id(quantizers[tensor]) for tensor in seen if tensor in kinds}
    read = {tensor for tensor in seen if tensor in kinds}
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name in reread:
                node.input[index] = reread[name]
            elif name in kinds and id(node) not in settling:
                node.input[index] = name + _TRUE
                read.add(name)
    nodes = [*pairs, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.graph.input.extend(
        onnx.helper.make_tensor_value_info(name + _TRUE, onnx.helper.np_dtype_to_tensor_dtype(kinds[name]), None)
        for name in kinds
        if name in read
    )
