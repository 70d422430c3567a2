"""Keeps the module path in node names through libraries that rename, fuse and insert nodes.

`export` writes `path.of.module/node` into the names. What comes after a fusion or a quantizer has other names; its
module is found again by what the node gives, by the constants that it reads, and by its neighbours.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

_SHOWN_MODULES = 6
_OF_QUANTIZERS = ("_quantized", "_scale", "_zero_point")


def module_of(name: str) -> str:
    """The dotted path of the module in a node's name; empty where it has none."""
    path, slash, _ = name.partition("/")
    return path if slash else ""


def lies_in(name: str, wanted: str) -> bool:
    """Whether a node lies in this module, or has this name."""
    return name == wanted or name.startswith((f"{wanted}/", f"{wanted}."))


def nodes_within(graph: onnx.ModelProto, modules: Sequence[str], option: str) -> list[str]:
    """The names of the nodes that lie in one of these modules, or have one of these names.

    Raises:
        UsageError: there are none in one of them; the hint has what is nearest.
    """
    names = [node.name for node in graph.graph.node]
    found: list[str] = []
    for wanted in modules:
        inside = [name for name in names if lies_in(name, wanted)]
        if not inside:
            there = dict.fromkeys(module for name in names if (module := module_of(name)))
            near = difflib.get_close_matches(wanted, [*there, *names], n=1)
            known = (
                f"its modules: {', '.join(list(there)[:_SHOWN_MODULES])}, …" if there else "its nodes have no modules"
            )
            raise UsageError(
                f"quantize.{option}: nothing of this graph lies in {wanted!r}",
                f"did you mean {near[0]!r}?" if near else known,
            )
        found += inside
    return found


def keep_module_names(after: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Lead the name of every node of `after` by the module that it comes from, as far as that can be told.

    In this order: that of the node of `before` that gave the same tensor or read the same constant; that of the
    node whose result it reads; that of the node that reads its result. A node of `before` that had none, because it
    stands in the outermost module, keeps its name.
    """
    known = dict(_modules_by_tensor(before))
    outermost = {node.name for node in before.graph.node if node.name}
    nodes = after.graph.node
    given_by = {tensor: node for node in nodes for tensor in node.output}
    read_by = {tensor: node for node in reversed(nodes) for tensor in node.input}
    made = [node for node in nodes if not module_of(node.name) and node.name not in outermost]
    for node in made:
        tensors = (*node.output, *(_unquantized(tensor) for tensor in node.input if tensor not in given_by))
        _lead(node, next((known[tensor] for tensor in tensors if tensor in known), ""))
    for node in made:
        if not module_of(node.name):
            makers = (given_by[tensor] for tensor in node.input if tensor in given_by)
            _lead(node, next((found for maker in makers if (found := module_of(maker.name))), ""))
    for node in reversed(made):
        if not module_of(node.name):
            readers = (read_by[tensor] for tensor in node.output if tensor in read_by)
            _lead(node, next((found for reader in readers if (found := module_of(reader.name))), ""))


def _modules_by_tensor(graph: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    given = {tensor for node in graph.graph.node for tensor in node.output}
    for node in graph.graph.node:
        if module := module_of(node.name):
            yield from ((tensor, module) for tensor in node.output)
            yield from ((tensor, module) for tensor in node.input if tensor not in given)


def _unquantized(tensor: str) -> str:
    for ending in _OF_QUANTIZERS:
        tensor = tensor.removesuffix(ending)
    return tensor


def _lead(node: onnx.NodeProto, module: str) -> None:
    if module:
        node.name = f"{module}/{node.name or node.op_type}"
