"""Embedding tables in int8: rows are looked up as integers, and become floats behind the look-up.

A pair in front of a Gather would turn the whole table into floats, at each call or when the file is opened.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

LEAST_SHARE = 0.01
_LARGEST = 127
_DIMS = 2


def quantize_lookups(path: Path, left: Collection[str]) -> list[str]:
    """Turn the tables of Gather nodes into int8, in the file, a scale for each column; the names of these nodes.

    A table keeps its floats where something else reads it too, where one of its nodes is to be `left`, and where it has
    less than 1% of the bytes of all constants.
    """
    proto = onnx.load(path)
    graph = proto.graph
    least = LEAST_SHARE * sum(_bytes(each) for each in graph.initializer)
    changed: list[str] = []
    for table, nodes in _tables(graph):
        if _bytes(table) < least or any(node.name in left for node in nodes):
            continue
        numbers, scales = _rounded(numpy_helper.to_array(table))
        integers, scale, zero = (f"{table.name}_{what}" for what in ("quantized", "scale", "zero_point"))
        graph.initializer.extend(
            [
                numpy_helper.from_array(numbers, integers),
                numpy_helper.from_array(scales, scale),
                numpy_helper.from_array(np.zeros(len(scales), np.int8), zero),
            ]
        )
        graph.initializer.remove(table)
        for node in nodes:
            (result,) = node.output
            node.input[0], node.output[0] = integers, f"{result}_quantized"
            dequantize = helper.make_node(
                "DequantizeLinear", [node.output[0], scale, zero], [result], f"{node.name}_DequantizeLinear", axis=-1
            )
            graph.node.insert(list(graph.node).index(node) + 1, dequantize)
            changed.append(node.name)
    if changed:
        del graph.value_info[:]
        onnx.save(proto, path)
    return changed


def _tables(graph: onnx.GraphProto) -> Iterator[tuple[TensorProto, list[onnx.NodeProto]]]:
    """Float matrices that nothing but Gather nodes along the first axis read, with these nodes."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    elsewhere = {each.name for each in graph.output} | {name for each in graph.node for name in _read_within(each)}
    for table in list(graph.initializer):
        if table.data_type != TensorProto.FLOAT or len(table.dims) != _DIMS or table.name in elsewhere:
            continue
        nodes = readers.get(table.name, [])
        if nodes and all(_looks_up(node, table.name) for node in nodes):
            yield table, nodes


def _read_within(node: onnx.NodeProto) -> Iterator[str]:
    """What the subgraphs of a node read, which is all that they can see, or give on."""
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from (each.name for each in graph.output)
            for inner in graph.node:
                yield from inner.input
                yield from _read_within(inner)


def _looks_up(node: onnx.NodeProto, table: str) -> bool:
    axis = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == table and node.input[1] != table and axis == 0


def _rounded(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int8 [rows, columns], and float32 scales [columns]; a column of zeros has 1."""
    largest = np.abs(table).max(axis=0)
    scales = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return np.clip(np.round(table / scales), -_LARGEST, _LARGEST).astype(np.int8), scales


def _bytes(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
