"""Exports a Hugging Face folder whose weights stay on the disk: the graph refers to them where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlpack.core.filesystem import link_or_copy
from mlpack.core.loader import Loader
from mlpack.errors import ModelError
from mlpack.sources.safetensors_header import data_start, read_safetensors_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx
    import onnx_ir
    import torch

    from mlpack.core.model import Model

PLACE = "weights"
_STORED = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}


def export_on_disk(model: Model, out: Path, export: Callable[[torch.nn.Module], Any]) -> onnx.ModelProto:
    """The graph, its large weights in the folder's own files, which are linked into `out`; a Cast widens each.

    `export` makes torch's ONNX program of a module, not optimized: the optimizer would turn every weight in memory.

    Raises:
        ModelError: weights are of a type that is no float.
    """
    import onnxscript.optimizer
    import onnxscript.rewriter.onnx_fusions
    from onnx_ir import to_proto

    from mlpack.backends.torch_hf_on_disk import Weights, stand_in
    from mlpack.backends.torch_loader import Flat

    folder = model.path / (Loader.read(model.path).archive or "")
    inner, names = stand_in(folder)
    flat = Flat(inner.eval(), [spec.name for spec in model.inputs], [spec.name for spec in model.outputs])
    flat.training = False
    graph = export(flat).model
    large = {f"inner.{name}": stored for name, stored in names.items()}
    onnxscript.optimizer.optimize_ir(graph, should_fold=_apart_from(large))
    onnxscript.rewriter.onnx_fusions.fuse(graph)
    # Some are read by nothing, or are one parameter under two names.
    large = {name: stored for name, stored in large.items() if name in graph.graph.initializers}
    weights = Weights(folder)
    for file in sorted({weights.files[stored] for stored in large.values()}):
        link_or_copy(file, out / PLACE / file.name)
    _refer(graph.graph, {name: (weights.files[stored], stored) for name, stored in large.items()}, out)
    proto: onnx.ModelProto = to_proto(graph)
    _widen(proto, set(large))
    return proto


def _apart_from(large: Mapping[str, str]) -> Callable[[onnx_ir.Node], bool | None]:
    """What the optimizer may compute ahead: nothing of these weights."""

    def may(node: onnx_ir.Node) -> bool | None:
        return False if any(each is not None and each.name in large for each in node.inputs) else None

    return may


def _refer(graph: onnx_ir.Graph, where: Mapping[str, tuple[Path, str]], out: Path) -> None:
    """In place of the stand-ins, the tensors of the files."""
    from onnx_ir import DataType, ExternalTensor, Shape

    headers = {file: (read_safetensors_header(file), data_start(file)) for file, _ in where.values()}
    for name, (file, stored) in where.items():
        header, start = headers[file]
        told = header[stored]
        if told["dtype"] not in _STORED:
            raise ModelError(
                f"{stored} is kept as {told['dtype']}: from the disk float32, float16 and bfloat16 are read",
                "save the model in one of these, or give --weights memory",
            )
        begin, end = told["data_offsets"]
        graph.initializers[name].const_value = ExternalTensor(
            f"{PLACE}/{file.name}",
            start + begin,
            end - begin,
            DataType[_STORED[told["dtype"]]],
            shape=Shape(told["shape"]),
            name=name,
            base_dir=out,
        )


def _widen(proto: onnx.ModelProto, large: set[str]) -> None:
    """A Cast before each node that reads a weight in half precision: right before it, as what it makes is large."""
    from onnx import TensorProto, helper

    halves = {
        each.name for each in proto.graph.initializer if each.name in large and each.data_type != TensorProto.FLOAT
    }
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        for at, name in enumerate(node.input):
            if name in halves:
                wide = f"{name}.float.{len(nodes)}"
                cast = helper.make_node("Cast", [name], [wide], name=f"{node.name}/to_float", to=TensorProto.FLOAT)
                cast.metadata_props.extend(node.metadata_props)
                nodes.append(cast)
                node.input[at] = wide
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
