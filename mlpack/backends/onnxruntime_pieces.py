"""Runs an ONNX graph in pieces, one session after the other: in memory are the weights of one piece alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from mlpack.core.external_data import array_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlpack.core.model import Model

_PIECE_BYTES = 32_000_000
# Where ONNX Runtime looks for external data of a graph that is handed over in memory.
_FOLDER = "session.model_external_initializers_file_folder_path"


class PiecesRunner:
    """The graph as a runner; every call opens the pieces anew, so that it takes as long as reading all weights does.

    `settings` makes the options of a session, `refused` an error of what the library raises.
    """

    def __init__(
        self, model: Model, settings: Callable[[], ort.SessionOptions], refused: Callable[[Exception], Exception]
    ) -> None:
        self._proto = onnx.load(model.entry_path, load_external_data=False)
        self._place = str(model.path)
        self._settings = settings
        self._refused = refused
        self._pieces = list(pieces(self._proto.graph, _PIECE_BYTES))
        self._given: dict[str, np.ndarray] = {}
        self._made: dict[str, np.ndarray] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.copy_in(inputs)
        self.compute()
        return self.copy_out()

    def copy_in(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._given = {name: np.ascontiguousarray(array) for name, array in inputs.items()}

    def compute(self) -> None:
        values = dict(self._given)
        wanted = [each.name for each in self._proto.graph.output]
        # What each piece leaves behind is what later ones, or the caller, still read.
        later: list[set[str]] = []
        read = set(wanted)
        for nodes in reversed(self._pieces):
            later.append(set(read))
            read |= reads(nodes)
        for nodes, still_read in zip(self._pieces, reversed(later), strict=True):
            made = [name for node in nodes for name in node.output if name in still_read]
            values |= zip(made, self._run(nodes, values, made), strict=True)
            values = {name: array for name, array in values.items() if name in still_read}
        # A constant may be an output as it is.
        constants = (each for each in self._proto.graph.initializer if each.name in wanted)
        values |= {each.name: array_of(each, Path(self._place)) for each in constants}
        self._made = {name: values[name] for name in wanted}

    def copy_out(self) -> dict[str, np.ndarray]:
        return self._made

    def device_ms(self) -> float | None:
        return None

    def _run(
        self, nodes: Sequence[onnx.NodeProto], values: Mapping[str, np.ndarray], made: list[str]
    ) -> list[np.ndarray]:
        names = reads(nodes)
        feeds = {name: values[name] for name in sorted(names) if name in values}
        # Types are those of the very arrays; shapes are left open.
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
            for name, array in feeds.items()
        ]
        graph = helper.make_graph(
            nodes,
            "piece",
            given,
            [helper.make_empty_tensor_value_info(name) for name in made],
            [each for each in self._proto.graph.initializer if each.name in names],
        )
        piece = helper.make_model(graph, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version)
        settings = self._settings()
        settings.add_session_config_entry(_FOLDER, self._place)
        # What a node is done with goes back to the system, not into a pool for a next run that never comes.
        settings.enable_cpu_mem_arena = False
        try:
            session = ort.InferenceSession(piece.SerializeToString(), settings, providers=["CPUExecutionProvider"])
            answers: list[np.ndarray] = session.run(made, feeds)
        except (RuntimeError, ValueError) as error:
            raise self._refused(error) from error
        return answers


def pieces(graph: onnx.GraphProto, size_bytes: int) -> Iterator[list[onnx.NodeProto]]:
    """The nodes in their order, cut wherever the weights that they read would be more; one node is never cut.

    What turns a weight into another form stays with the node that it is for.
    """
    sizes = {each.name: _size_bytes(each) for each in graph.initializer}
    fixed = set(sizes)
    piece: list[onnx.NodeProto] = []
    weights: set[str] = set()
    waiting: list[onnx.NodeProto] = []
    for node in graph.node:
        waiting.append(node)
        if node.input and reads([node]) <= fixed:
            fixed.update(node.output)
            continue
        more = reads(waiting) & sizes.keys()
        if weights and more - weights and sum(sizes[name] for name in weights | more) > size_bytes:
            yield piece
            piece, weights = [], set()
        piece += waiting
        weights |= more
        waiting = []
    if piece or waiting:
        yield piece + waiting


def reads(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """The names of all that nodes read, inside of their subgraphs too."""
    found = {name for node in nodes for name in node.input if name}
    for node in nodes:
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                found |= reads(inside.node) | {each.name for each in inside.output}
    return found


def _size_bytes(tensor: onnx.TensorProto) -> int:
    told = {each.key: each.value for each in tensor.external_data}
    return int(told.get("length", math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize))
