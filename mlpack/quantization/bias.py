"""Bias correction: the mean error that quantization leaves in a layer's output channels is taken off its bias.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2,
the empirical form. All layers are seen in one pass, each fed with what the float graph computes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mlpack.core.external_data import load_whole
from mlpack.quantization.qdq_graph import BEFORE_OUTPUT, PRODUCTS, QdqGraph, quantized_products
from mlpack.quantization.shown import showing, tensors_of
from mlpack.quantization.stream import stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlpack.quantization.shown import Arrays

_TRUE = "@true"
_BIAS = 2


@dataclass(frozen=True)
class _Layer:
    """A quantized product, and the node that adds its bias, by name.

    `bias` is the bias in the quantized graph, empty where there is none; `source` is what the product reads, by its
    name in the float graph; `true` and `got` are the result with the bias in the float and in the quantized graph;
    `channels` is the axis of the output channels.
    """

    node: str
    bias: str
    source: str
    true: str
    got: str
    channels: int


def correct_biases(
    reference: onnx.ModelProto, quantized: Path, batches: Iterable[Arrays], *, threads: int, cut: bool
) -> list[str]:
    """Correct, in the file, the bias of every product with quantized weights; the names of the nodes that add them.

    An int32 bias behind a DequantizeLinear stays in that form, a float one in float; a convolution or Gemm without
    bias gets one. The bias of a MatMul is the constant of the Add behind it, where that is in float: eight bits
    cannot hold a correction.

    Args:
        reference: the float graph that was quantized.
        quantized: the Q/DQ graph; what it keeps in other files stays there.
        batches: calibration feeds; memory does not grow with their number.
        threads: of ONNX Runtime.
        cut: whether batches may be run in parts.
    """
    graph = QdqGraph(load_whole(quantized))
    layers = list(_layers(reference, graph))
    if not layers:
        return []
    errors = _mean_errors(reference, graph, layers, batches, threads=threads, cut=cut)
    light = QdqGraph(onnx.load(quantized, load_external_data=False), quantized.parent)
    for layer in layers:
        _add_to_bias(light, layer, errors[layer.got])
    onnx.save(light.proto, quantized)
    return [layer.node for layer in layers]


def _layers(reference: onnx.ModelProto, graph: QdqGraph) -> Iterator[_Layer]:
    """The products whose weights are quantized and whose bias can be corrected, in the order of the graph."""
    before = QdqGraph(reference)
    for node, twin in quantized_products(before, graph):
        true, adds, bias = twin, node, node.input[_BIAS] if len(node.input) > _BIAS else ""
        if node.op_type == "MatMul":
            added, added_before = _added_to(graph, node), _added_to(before, twin)
            if added is None or added_before is None:
                continue
            (adds, bias), (true, _) = added, added_before
        if not bias or graph.bias_size(bias) == graph.outputs(node):
            yield _Layer(adds.name, bias, twin.input[0], true.output[0], adds.output[0], PRODUCTS[node.op_type])


def _mean_errors(
    reference: onnx.ModelProto,
    graph: QdqGraph,
    layers: list[_Layer],
    batches: Iterable[Arrays],
    *,
    threads: int,
    cut: bool,
) -> dict[str, np.ndarray]:
    """By how much each channel of a layer is too low in the mean, by the tensor `got`."""
    sums: dict[str, np.ndarray] = {}
    shown = [layer.got for layer in layers]
    counts = dict.fromkeys(shown, 0)
    with tempfile.TemporaryDirectory() as folder:
        session = showing(_fed_with_the_truth(graph.proto, layers), shown, Path(folder) / "shown.onnx", threads)
        wanted = {each.name for each in session.get_inputs()}

        def see(values: Arrays) -> None:
            given = {name: array for name, array in values.items() if name in wanted}
            given |= {name + _TRUE: array for name, array in values.items() if name + _TRUE in wanted}
            got = tensors_of(session, shown, given)
            for layer in layers:
                error = np.moveaxis(values[layer.true] - got[layer.got], layer.channels, -1)
                total = error.reshape(-1, error.shape[-1]).sum(axis=0, dtype=np.float64)
                sums[layer.got] = sums.get(layer.got, 0.0) + total
                counts[layer.got] += error.size // error.shape[-1]

        inputs = [each.name for each in reference.graph.input]
        seen = dict.fromkeys([*inputs, *(name for layer in layers for name in (layer.source, layer.true))])
        stream(reference, list(seen), batches, see, threads=threads, cut=cut)
    return {name: total / counts[name] for name, total in sums.items()}


def _added_to(graph: QdqGraph, product: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
    """The Add of a float constant that alone reads the product, and the constant."""
    tensor = product.output[0]
    while (readers := graph.readers.get(tensor, [])) and len(readers) == 1:
        (node,) = readers
        if node.op_type == "Add":
            constant = node.input[1 if node.input[0] == tensor else 0]
            return (node, constant) if constant in graph.constants else None
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            return None
        tensor = node.output[0]
    return None


def _fed_with_the_truth(graph: onnx.ModelProto, layers: list[_Layer]) -> onnx.ModelProto:
    """A copy in which every layer reads what the float graph computes, quantized, from an input of the graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    fed = {each.name for each in copy.graph.input}
    sources = {layer.source for layer in layers} - fed
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            plain = name.removesuffix(BEFORE_OUTPUT)
            if name in sources or plain in sources:
                node.input[index] = (name if name in sources else plain) + _TRUE
    copy.graph.input.extend(
        helper.make_tensor_value_info(name + _TRUE, onnx.TensorProto.FLOAT, None) for name in sorted(sources)
    )
    return copy


def _add_to_bias(graph: QdqGraph, layer: _Layer, error: np.ndarray) -> None:
    """Add the error to the layer's bias, in the form that the bias has or would have."""
    node = graph.makers[layer.got]
    error = error / next((each.f for each in node.attribute if each.name == "beta"), 1.0)
    if not layer.bias:
        _give_bias(graph, node, error)
        return
    name = graph.unquantized(layer.bias)
    before = graph.array(name)
    error = error.reshape(before.shape)
    if before.dtype == np.int32:
        after = _in_steps(error, graph.scale(layer.bias, error.size).reshape(before.shape), before)
    else:
        after = (before + error).astype(before.dtype)
    if len(graph.readers[name]) > 1:
        # Others read the same numbers, and have errors of their own.
        name = f"{layer.got}_bias_corrected"
        node.input[list(node.input).index(layer.bias)] = name
        graph.constants[name] = graph.proto.graph.initializer.add()
    graph.constants[name].CopyFrom(numpy_helper.from_array(after, name))


def _give_bias(graph: QdqGraph, node: onnx.NodeProto, error: np.ndarray) -> None:
    name = f"{node.output[0]}_bias"
    made = {name: error.astype(np.float32)}
    if not graph.made_by(graph.makers[node.input[1]].input[0], "QuantizeLinear"):
        scale = (graph.scale(node.input[0], error.size) * graph.scale(node.input[1], error.size)).astype(np.float32)
        steps = _in_steps(error, scale, np.zeros(error.shape, np.int32))
        made = {f"{name}_quantized": steps, f"{name}_scale": scale, f"{name}_zero_point": np.zeros_like(steps)}
        pair = helper.make_node("DequantizeLinear", list(made), [name], name=f"{name}_DequantizeLinear", axis=0)
        at = next(index for index, each in enumerate(graph.proto.graph.node) if each.output == node.output)
        graph.proto.graph.node.insert(at, pair)
        node = graph.proto.graph.node[at + 1]
    node.input.append(name)
    graph.proto.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in made.items())


def _in_steps(error: np.ndarray, scale: np.ndarray, before: np.ndarray) -> np.ndarray:
    """An int32 bias with an error added."""
    ends = np.iinfo(np.int32)
    return np.asarray(np.clip(np.rint(before + error / scale), ends.min, ends.max), np.int32)
