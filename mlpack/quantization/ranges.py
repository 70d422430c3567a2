"""The ranges that calibration found, read back from a quantized graph: what lies outside of them saturates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from mlpack.quantization.float8 import E4M3_MAX

if TYPE_CHECKING:
    from pathlib import Path


def calibration_ranges(path: Path) -> list[dict[str, Any]]:
    """A row for each quantized activation, in the order of the graph: `tensor`, `low`, `high`, `step`.

    A value x is kept as round(x / step) + zero point, in the zero point's type, of integers or E4M3; `low` and `high`
    are the ends of what that can hold (ONNX's QuantizeLinear). Weights and per-channel scales have no row.
    """
    graph = onnx.load(path, load_external_data=False).graph
    constants = {each.name: each for each in graph.initializer}
    rows = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants or node.input[1] not in constants:
            continue
        step = numpy_helper.to_array(constants[node.input[1]])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004 - x, scale, zero point
        ends = _ends(zero)
        if step.size != 1 or ends is None:
            continue
        low, high = (end * float(step.item()) for end in ends)
        rows.append({"tensor": node.input[0], "low": low, "high": high, "step": float(step.item())})
    return rows


def _ends(zero: onnx.TensorProto | None) -> tuple[float, float] | None:
    """The least and the largest multiple of the step; None where there are several zero points."""
    if zero is not None and zero.data_type == onnx.TensorProto.FLOAT8E4M3FN:
        return -E4M3_MAX, E4M3_MAX
    point = np.zeros((), np.uint8) if zero is None else numpy_helper.to_array(zero)
    if point.size != 1 or point.dtype.kind not in "iu":
        return None
    ends = np.iinfo(point.dtype)
    return ends.min - int(point.item()), ends.max - int(point.item())
