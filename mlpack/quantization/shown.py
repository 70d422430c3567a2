"""A session of a graph that gives its inner tensors too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort

from mlpack.quantization.float8 import has_e4m3

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Arrays = dict[str, np.ndarray]
_INLINE_BYTES = 1_500_000_000


def showing(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    path: Path,
    threads: int,
    *,
    literal: bool = False,
    arena: bool = False,
) -> ort.InferenceSession:
    """A session on ONNX Runtime's CPU kernels; the graph with its new outputs is written to `path`.

    `literal`: Q/DQ are computed as they stand; no integer kernel takes their place.
    `arena`: blocks are kept for the next run, which is for runs of one shape. An arena keeps the largest block of every
    shape that it has seen: memory would grow with the variety of lengths.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    known = {output.name for output in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors if tensor not in known)
    onnx.save(shown, path, save_as_external_data=shown.ByteSize() > _INLINE_BYTES)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    # ONNX Runtime makes integer kernels of E4M3 too, and then refuses the graph that it made.
    if literal or has_e4m3(graph):
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.enable_cpu_mem_arena = arena
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def tensors_of(session: ort.InferenceSession, tensors: Sequence[str], feeds: Mapping[str, np.ndarray]) -> Arrays:
    """These tensors of one run, by name."""
    # An empty list would ask for all outputs.
    return dict(zip(tensors, session.run(list(tensors), dict(feeds)), strict=True)) if tensors else {}
