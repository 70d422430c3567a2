"""One graph that holds a model twice, float and quantized, with a switch at every layer that quantizing changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_CHANGING = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
    "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits",
    "GatherBlockQuantized",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """Nodes of the float graph that have one quantized form; `switch` is the boolean input that turns it on."""

    nodes: tuple[str, ...]
    switch: str


def switched(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Layer]]:
    """The float graph in which each layer is an `If`: its nodes as they were, or what became of them when quantized.

    A layer reaches from tensors that both graphs compute to the next ones: a quantizer drops a ReLU where the range
    of what follows does its work, and convolution and ReLU are one layer then. Only the branch that is on is run, so
    a run takes about as long as one of the float graph. Layers are in the order of the graph; nodes that both graphs
    have alike are none.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(before)
    inner = graph.graph
    fed = {each.name for each in inner.input}
    known = {each.name for each in inner.initializer}
    read = {name for node in inner.node for name in _reads(node)} | {each.name for each in inner.output}
    made = {tensor for node in inner.node for tensor in node.output if tensor}
    quantized = _Between(after, made | fed)
    floating = _Between(before, quantized.makes | fed)
    layers: list[Layer] = []
    nodes: list[onnx.NodeProto] = []
    for node in inner.node:
        wanted = [tensor for tensor in node.output if tensor in read]
        # What is done to a result for its readers alone is theirs.
        if not any(quantized.changes(each, known) for each in quantized.nodes(wanted)):
            nodes.append(node)
            continue
        part = quantized.nodes([*wanted, *map(quantized.source, wanted)])
        layer = Layer(tuple(each.name for each in floating.nodes(wanted)), f"@{len(layers)}")
        given = [quantized.source(tensor) for tensor in wanted]
        choice = {
            "then_branch": _branch(f"{layer.switch}q", given, [quantized.own(each) for each in part]),
            "else_branch": _branch(f"{layer.switch}f", wanted, [node]),
        }
        nodes.append(onnx.helper.make_node("If", [layer.switch], wanted, name=node.name, **choice))
        layers.append(layer)
        inner.input.append(onnx.helper.make_tensor_value_info(layer.switch, onnx.TensorProto.BOOL, []))
    del inner.node[:]
    inner.node.extend(nodes)
    inner.initializer.extend(quantized.constants())
    del inner.value_info[:]
    versions = {each.domain: each.version for each in (*before.opset_import, *after.opset_import)}
    del graph.opset_import[:]
    graph.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    return graph, layers


class _Between:
    """A graph, asked for the nodes between a tensor and what the other graph computes too."""

    def __init__(self, graph: onnx.ModelProto, shared: Collection[str]) -> None:
        self._makers = {tensor: node for node in graph.graph.node for tensor in node.output if tensor}
        self._place = {id(node): at for at, node in enumerate(graph.graph.node)}
        self._weights = {each.name: each for each in graph.graph.initializer}
        self._shared = shared
        self._read: dict[str, None] = {}
        self._sources = settled(graph)
        self.makes = self._makers.keys()

    def source(self, tensor: str) -> str:
        """What all who read the tensor see of it: what its DequantizeLinear gives, where all read through one."""
        return self._sources.get(tensor, tensor)

    def nodes(self, tensors: Sequence[str]) -> list[onnx.NodeProto]:
        """In the order of the graph; none where it does not compute all of these tensors."""
        if not tensors or not all(tensor in self._makers for tensor in tensors):
            return []
        found: dict[int, onnx.NodeProto] = {}
        waiting = list(tensors)
        for tensor in waiting:
            node = self._makers.get(tensor)
            if node is not None and id(node) not in found:
                found[id(node)] = node
                waiting += [name for name in _reads(node) if name not in self._shared]
        return sorted(found.values(), key=lambda node: self._place[id(node)])

    def changes(self, node: onnx.NodeProto, known: Collection[str]) -> bool:
        """Whether a quantizer made it, or the int8 that it reads: a table is looked up as such by a plain Gather."""
        own = (self._weights[name] for name in node.input if name in self._weights and name not in known)
        return node.op_type in _CHANGING or any(each.data_type == onnx.TensorProto.INT8 for each in own)

    def own(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy that reads constants by names which the other graph has none of."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for at, name in enumerate(copy.input):
            if name in self._weights:
                self._read[name] = None
                copy.input[at] = f"{name}@"
        return copy

    def constants(self) -> Iterable[onnx.TensorProto]:
        """All that was read, by those names."""
        for name in self._read:
            own = onnx.TensorProto()
            own.CopyFrom(self._weights[name])
            own.name = f"{name}@"
            yield own


def settled(graph: onnx.ModelProto) -> dict[str, str]:
    """The tensors that are read through a QuantizeLinear only, each with what its DequantizeLinear gives.

    Where a quantizer dropped a ReLU, only that is what the float graph calls by the tensor's name.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in _reads(node):
            readers.setdefault(name, []).append(node)
    for output in graph.graph.output:
        readers.pop(output.name, None)
    found = {}
    for tensor, those in readers.items():
        if all(node.op_type == "QuantizeLinear" and node.input[0] == tensor for node in those):
            after = readers.get(those[0].output[0], [])
            if after and after[0].op_type == "DequantizeLinear":
                found[tensor] = after[0].output[0]
    return found


def _branch(mark: str, tensors: Sequence[str], nodes: Sequence[onnx.NodeProto]) -> onnx.GraphProto:
    """These nodes as a graph; what they make has names of its own, as ONNX asks for inside of a graph."""
    inside = {tensor: f"{tensor}{mark}" for node in nodes for tensor in node.output if tensor}
    renamed = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}{mark}"
        copy.input[:] = [inside.get(name, name) for name in node.input]
        copy.output[:] = [inside.get(name, name) for name in node.output]
        renamed.append(copy)
    outputs = [onnx.ValueInfoProto(name=inside[tensor]) for tensor in tensors]
    return onnx.helper.make_graph(renamed, mark, [], outputs)


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """What a node reads, inside of its own graphs too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for each in (attribute.g, *attribute.graphs):
            for inner in each.node:
                yield from _reads(inner)
            yield from (output.name for output in each.output)
