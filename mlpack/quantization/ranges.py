"""The ranges that calibration found, read back from a quantized graph: what lies outside of them saturates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from pathlib import Path


def calibration_ranges(path: Path) -> list[dict[str, Any]]:
    """A row for each quantized activation, in the order of the graph: `tensor`, `low`, `high`, `step`.

    A value x is kept as round(x / step) + zero point, in the integers of the zero point's type; `low` and `high` are
    the ends of what that can hold (ONNX's QuantizeLinear). Weights and per-channel scales have no row.
    """
    graph = onnx.load(path, load_external_data=False).graph
    constants = {each.name: each for each in graph.initializer}
    rows = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants or node.input[1] not in constants:
            continue
        step = numpy_helper.to_array(constants[node.input[1]])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004 - x, scale, zero point
        point = np.zeros((), np.uint8) if zero is None else numpy_helper.to_array(zero)
        if step.size != 1 or point.dtype.kind not in "iu":
            continue
        ends = np.iinfo(point.dtype)
        low, high = ((end - int(point.item())) * float(step.item()) for end in (ends.min, ends.max))
        rows.append({"tensor": node.input[0], "low": low, "high": high, "step": float(step.item())})
    return rows
