"""Constants of an ONNX graph that lie in files beside it: which they are, and how they are read.

`onnx.load` refuses a file with a second name, as links can be made to lead elsewhere. The store and the cache give
one content two names on purpose, and where a model's files lie is checked as it is taken in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def is_beside(tensor: TensorProto) -> bool:
    """Whether its content lies in a file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def place_of(tensor: TensorProto) -> tuple[str, int, int]:
    """File, first byte, number of bytes."""
    told = {each.key: each.value for each in tensor.external_data}
    size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return told["location"], int(told.get("offset", 0)), int(told.get("length", size))


def array_of(tensor: TensorProto, folder: Path) -> np.ndarray:
    """What a constant holds. Of a file these bytes alone are read, and nothing of them stays in the tensor."""
    if not is_beside(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    location, offset, _ = place_of(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    size = math.prod(tensor.dims) * dtype.itemsize
    content = np.fromfile(folder / location, np.uint8, size, offset=offset)
    return np.asarray(content.view(dtype).reshape(tuple(tensor.dims)))


def load_whole(path: Path) -> onnx.ModelProto:
    """The graph of a file with all its constants in memory, whatever names the files beside it have."""
    proto = onnx.load_model(path, load_external_data=False)
    fill_in(proto, path.parent)
    return proto


def fill_in(proto: onnx.ModelProto, folder: Path) -> None:
    """Read into a graph all that lies in the files of this folder."""
    for tensor in constants_of(proto):
        read_in(tensor, folder)


def read_in(tensor: TensorProto, folder: Path) -> None:
    """Put into a tensor what it has in a file, if it has."""
    if not is_beside(tensor):
        return
    location, offset, size = place_of(tensor)
    with (folder / location).open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(size)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def constants_of(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """All constants of a graph, those of its subgraphs, nodes and functions among them."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)
