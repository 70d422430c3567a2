"""Embedding tables in int8: rows are looked up as integers, and become floats behind the look-up.

A pair in front of a Gather would turn the whole table into floats, at each call or when the file is opened. Behind it
stand Cast and Mul, not a DequantizeLinear: ONNX Runtime fuses that with a Concat or an Add into operators that know no
scale of a column, and graphs before opset 13 have none with an axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.coverage import INFINITE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

LEAST_SHARE = 0.01
_LARGEST = 127
_SMALLEST = np.finfo(np.float32).tiny
_DIMS = 2


def quantize_lookups(path: Path, left: Collection[str]) -> list[str]:
    """Turn the tables of Gather nodes into int8, in the file, a scale for each column; the names of these nodes.

    A table keeps its floats where something else reads it too, where one of its nodes is to be `left`, where it has
    less than 1% of the bytes of all constants, and where a number of it stands for infinity. A file with constants in
    other files stays as it is.
    """
    proto = onnx.load(path, load_external_data=False)
    graph = proto.graph
    if any(each.data_location == TensorProto.EXTERNAL for each in graph.initializer):
        return []
    least = LEAST_SHARE * sum(_bytes(each) for each in graph.initializer)
    names = _Names(graph)
    changed: list[str] = []
    for table, nodes in _tables(graph):
        values = numpy_helper.to_array(table)
        # Infinite, or what stands for it in masks; no number compares as false.
        if _bytes(table) < least or any(node.name in left for node in nodes) or not (np.abs(values) < INFINITE).all():
            continue
        numbers, steps = _rounded(values)
        integers, scale = (names.free(f"{table.name}_{what}") for what in ("quantized", "scale"))
        graph.initializer.extend([numpy_helper.from_array(numbers, integers), numpy_helper.from_array(steps, scale)])
        graph.initializer.remove(table)
        for given in [each for each in graph.input if each.name == table.name]:
            graph.input.remove(given)
        for node in nodes:
            (result,) = node.output
            rows, floats = (names.free(f"{result}_{what}") for what in ("quantized", "unscaled"))
            at = list(graph.node).index(node) + 1
            node.input[0], node.output[0] = integers, rows
            label = node.name or result
            graph.node.insert(at, helper.make_node("Mul", [floats, scale], [result], f"{label}_Mul"))
            graph.node.insert(at, helper.make_node("Cast", [rows], [floats], f"{label}_Cast", to=TensorProto.FLOAT))
            changed.append(node.name)
    if changed:
        del graph.value_info[:]
        onnx.save(proto, path)
    return changed


class _Names:
    """The names of a graph's values, and free ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        values = (*graph.initializer, *graph.input, *graph.output)
        self._taken = {each.name for each in values} | {name for node in graph.node for name in _read_within(node)}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output)}

    def free(self, wanted: str) -> str:
        """The name that is wanted, with lines behind it where it is taken."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted


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
    """Int8 [rows, columns], and float32 steps [columns]; a column of zeros has 1."""
    largest = np.abs(table).max(axis=0)
    steps = np.where(largest > 0, np.maximum(largest / _LARGEST, _SMALLEST), 1).astype(np.float32)
    return np.clip(np.round(table / steps), -_LARGEST, _LARGEST).astype(np.int8), steps


def _bytes(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
