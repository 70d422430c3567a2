"""Fusions of attention and of what stands around it into operators that onnxruntime alone has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from onnxscript import ir
from onnxscript.rewriter.ort_fusions import optimize_for_ort

from mlpack.core.external_data import load_whole
from mlpack.stages.module_names import keep_module_names

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.model import Model

SERVED_BY = "onnxruntime"
_DOMAIN = "com.microsoft"
_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention"}


class _Shapes(SymbolicShapeInference):  # type: ignore[misc] # the library has no types
    """Shapes with symbols: the rules compare those of queries, keys and values, and ONNX's own inference loses some.

    The library's own function writes a file into the current folder where one stays unknown.
    """

    def __init__(self) -> None:
        super().__init__(int_max=2**31 - 1, auto_merge=True, guess_output_rank=False, verbose=0)

    def of(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the graph with what is known of the shapes between its nodes."""
        self._preprocess(graph)
        while self.run_:
            self._infer_impl()
        self._update_output_from_vi()
        shaped: onnx.ModelProto = self.out_mp_
        return shaped


def write_fused(model: Model, out: Path) -> dict[str, int]:
    """Write the fused graph into a folder: how many operators of onnxruntime's own it has, by type.

    They are counted in the graph: the library counts the rules that fired, of which several make one operator. Where
    no attention was fused nothing is written, and nothing counted: the rest onnxruntime fuses itself.
    """
    before = load_whole(model.entry_path)
    fused, _ = optimize_for_ort(ir.from_proto(_Shapes().of(before)))
    after = ir.to_proto(fused)
    counts: dict[str, int] = {}
    for node in after.graph.node:
        if node.domain == _DOMAIN:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    if not _ATTENTION & counts.keys():
        return {}
    # What was known of the shapes between the nodes was of those that are replaced.
    del after.graph.value_info[:]
    keep_module_names(after, before)
    external = len(list(model.files())) > 1
    onnx.save(after, out / model.entry, save_as_external_data=external, location=f"{model.entry}.data")
    return dict(sorted(counts.items()))
