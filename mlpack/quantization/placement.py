"""Where Q/DQ pairs belong: what stays in float reads what was there before a pair was put in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_PAIR = {"QuantizeLinear", "DequantizeLinear"}
# They give some of the values that they are given, or all of them in another order.
_CARRYING = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}


def spare_float_readers(
    graph: onnx.ModelProto, quantized: Callable[[onnx.NodeProto], bool], float_results: Collection[str]
) -> int:
    """Let nodes that are not `quantized` read a tensor itself in place of its Q/DQ pair; gives how many inputs did.

    ONNX Runtime's quantizer puts a pair between a tensor and all that read it: a residual sum then adds up rounded
    values because a product beside it is quantized. A tensor that a quantized node makes keeps its pair for all
    readers, since integer kernels give integers, unless the node's operator is among `float_results`. So does one
    that a pool or a transpose takes from such integers, and its pair has their step: nothing is rounded twice.
    """
    makers = {tensor: node for node in graph.graph.node for tensor in node.output if tensor}

    def of_integers(tensor: str) -> bool:
        maker = makers.get(tensor)
        if maker is not None and maker.op_type in _CARRYING and not quantized(maker):
            before = _source(maker.input[0], makers)
            return before is not None and of_integers(before)
        return maker is not None and quantized(maker) and maker.op_type not in float_results

    spared = 0
    for node in graph.graph.node:
        if node.op_type in _PAIR or quantized(node):
            continue
        for at, name in enumerate(node.input):
            source = _source(name, makers)
            if source is not None and not of_integers(source):
                node.input[at] = source
                spared += 1
    _carry_steps(graph, makers)
    _sweep(graph)
    return spared


def _carry_steps(graph: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto]) -> None:
    """Give the pairs behind what carries integers their scale and zero point, and its later readers such a pair."""
    for node in graph.graph.node:
        last = makers.get(node.input[0]) if node.op_type in _CARRYING else None
        if last is None or _source(node.input[0], makers) is None:
            continue
        shared = None
        for reader in graph.graph.node:
            if shared is not None and reader.op_type not in _PAIR:
                reader.input[:] = [shared if name == node.output[0] else name for name in reader.input]
            elif reader.output and _source(reader.output[0], makers) == node.output[0]:
                for each in (makers[reader.input[0]], reader):
                    each.input[1:] = last.input[1:]
                shared = shared or reader.output[0]


def pair_summands(
    graph: onnx.ModelProto,
    quantized: Callable[[onnx.NodeProto], bool],
    summed: Collection[str],
    largest: Mapping[str, float],
) -> int:
    """Give the summand beside what a quantized node of `summed` makes a symmetric int8 pair; gives how many got one.

    Between that node and the sum no pair is left: a kernel that adds up as well then takes all of it. `largest` has
    the largest magnitude of each tensor that calibration saw; a summand that it did not see stays as it is.

    Source: TensorRT documentation, Explicit Quantization, placement recommendations ("quantize the residual input in
    skip connections", and no pair between a convolution and an addition).
    """
    constants = {each.name for each in graph.graph.initializer}
    makers = {tensor: node for node in graph.graph.node for tensor in node.output if tensor}
    nodes: list[onnx.NodeProto] = []
    made = 0
    for node in graph.graph.node:
        if node.op_type == "Add" and not constants.intersection(node.input):
            sources = [_source(name, makers) or name for name in node.input]
            main = next((at for at, name in enumerate(sources) if _makes(makers.get(name), quantized, summed)), None)
            if main is not None and sources[0] != sources[1]:
                node.input[main] = sources[main]
                beside = sources[1 - main]
                if node.input[1 - main] == beside and beside in largest:
                    name = f"{node.name or node.output[0]}_beside"
                    nodes += _pair(graph, name, beside, largest[beside])
                    node.input[1 - main] = nodes[-1].output[0]
                    made += 1
        nodes.append(node)
    ordered = onnx.GraphProto(node=nodes)
    del graph.graph.node[:]
    graph.graph.node.extend(ordered.node)
    _sweep(graph)
    return made


def signed_factors(
    graph: onnx.ModelProto, quantized: Callable[[onnx.NodeProto], bool], lowest: Mapping[str, float]
) -> list[str]:
    """The activations below zero that a quantized MatMul multiplies with another activation, as attention does.

    `lowest` has the least value of each tensor that calibration saw. What a weight's zero points cost is computed
    ahead of time; here there is no weight, and the whole product goes back to float (measured on OpenVINO, decision
    0025). Symmetric integers have no zero point, and what is never below zero has none anyway.
    """
    constants = {each.name for each in graph.graph.initializer}
    products = (node for node in graph.graph.node if node.op_type == "MatMul" and quantized(node))
    factors = [name for node in products if not constants.intersection(node.input) for name in node.input]
    return [name for name in dict.fromkeys(factors) if lowest.get(name, 0.0) < 0]


def between_convolutions(graph: onnx.ModelProto, quantized: Callable[[onnx.NodeProto], bool]) -> list[str]:
    """The tensors that one node alone reads, and that a quantized Conv gives or takes.

    ONNX Runtime makes their int8 uint8 with a zero point of 128, bit for bit the same, where x86 kernels want that; of
    a tensor with several readers it does not, and computes in float (measured, decision 0048).
    """
    readers = Counter(name for node in graph.graph.node for name in node.input)
    ends = (
        name
        for node in graph.graph.node
        if node.op_type == "Conv" and quantized(node)
        for name in (node.input[0], node.output[0])
    )
    return [name for name in dict.fromkeys(ends) if readers[name] == 1]


def _makes(maker: onnx.NodeProto | None, quantized: Callable[[onnx.NodeProto], bool], summed: Collection[str]) -> bool:
    return maker is not None and maker.op_type in summed and quantized(maker)


def _pair(graph: onnx.ModelProto, name: str, tensor: str, largest: float) -> list[onnx.NodeProto]:
    """Symmetric in int8; a tensor of zeros has a step all the same."""
    step = np.float32(largest / 127 if largest else 1.0)
    graph.graph.initializer.append(numpy_helper.from_array(step, f"{name}_scale"))
    graph.graph.initializer.append(numpy_helper.from_array(np.int8(0), f"{name}_zero_point"))
    scale = [f"{name}_scale", f"{name}_zero_point"]
    return [
        helper.make_node("QuantizeLinear", [tensor, *scale], [f"{name}_quantized"], name=f"{name}_QuantizeLinear"),
        helper.make_node(
            "DequantizeLinear", [f"{name}_quantized", *scale], [f"{name}_dequantized"], name=f"{name}_DequantizeLinear"
        ),
    ]


def _source(name: str, makers: Mapping[str, onnx.NodeProto]) -> str | None:
    """What was quantized and dequantized to this tensor; None where it is something else."""
    last = makers.get(name)
    first = makers.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
    return first.input[0] if first is not None and first.op_type == "QuantizeLinear" else None


def _sweep(graph: onnx.ModelProto) -> None:
    """Remove the pairs that nothing reads any more, and constants that nothing reads."""
    kept = {each.name for each in graph.graph.output}
    while True:
        read = {name for node in graph.graph.node for name in node.input} | kept
        dead = [node for node in graph.graph.node if node.op_type in _PAIR and not read.intersection(node.output)]
        if not dead:
            break
        for node in dead:
            graph.graph.node.remove(node)
    unread = [each for each in graph.graph.initializer if each.name not in read]
    for each in unread:
        graph.graph.initializer.remove(each)
