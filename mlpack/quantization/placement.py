"""Where Q/DQ pairs belong: what stays in float reads what was there before a pair was put in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import onnx

_PAIR = {"QuantizeLinear", "DequantizeLinear"}


def spare_float_readers(
    graph: onnx.ModelProto, quantized: Callable[[onnx.NodeProto], bool], float_results: Collection[str]
) -> int:
    """Let nodes that are not `quantized` read a tensor itself in place of its Q/DQ pair; gives how many inputs did.

    ONNX Runtime's quantizer puts a pair between a tensor and all that read it: a residual sum then adds up rounded
    values because a product beside it is quantized. A tensor that a quantized node makes keeps its pair for all
    readers, since integer kernels give integers, unless the node's operator is among `float_results`.
    """
    makers = {tensor: node for node in graph.graph.node for tensor in node.output if tensor}
    spared = 0
    for node in graph.graph.node:
        if node.op_type in _PAIR or quantized(node):
            continue
        for at, name in enumerate(node.input):
            source = _source(name, makers)
            if source is None:
                continue
            maker = makers.get(source)
            if maker is None or not quantized(maker) or maker.op_type in float_results:
                node.input[at] = source
                spared += 1
    _sweep(graph)
    return spared


def _source(name: str, makers: dict[str, onnx.NodeProto]) -> str | None:
    """What was quantized and dequantized to this tensor; None where it is something else."""
    last = makers.get(name)
    first = makers.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
    return first.input[0] if first is not None and first.op_type == "QuantizeLinear" else None


def _sweep(graph: onnx.ModelProto) -> None:
    """Remove the pairs that nothing reads any more."""
    kept = {each.name for each in graph.graph.output}
    while True:
        read = {name for node in graph.graph.node for name in node.input} | kept
        dead = [node for node in graph.graph.node if node.op_type in _PAIR and not read.intersection(node.output)]
        if not dead:
            return
        for node in dead:
            graph.graph.node.remove(node)
