"""Tensors that hold the values of another one in another shape or order: what is known of one is known of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

_MOVES = {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"}


def sources(graph: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, str]:
    """For each of these activations the first one whose values, as a set with repetitions, are its own."""
    moved = {node.output[0]: node.input[0] for node in graph.graph.node if node.op_type in _MOVES and not node.domain}
    seen = {each.name for each in graph.graph.input} - {each.name for each in graph.graph.initializer}
    seen |= {output for node in graph.graph.node if node.op_type != "Constant" for output in node.output}
    found = {}
    for name in tensors:
        at = name
        while moved.get(at) in seen:
            at = moved[at]
        found[name] = at
    return found
