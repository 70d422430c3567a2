"""A graph in a newer opset, its operators converted: another number alone would leave forms that are unknown now."""

from __future__ import annotations

import onnx
from onnx import version_converter

from mlpack.core.external_data import constants_of, is_beside
from mlpack.errors import StageFailed

# From here to 21 this operator alone has another meaning; the others only take more types.
_ALIKE_SINCE = 18
_CHANGED = "GroupNormalization"


def newer(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The graph in this opset, at most 21, or in its own where that is newer.

    Raises:
        StageFailed: the converter refuses it, or its constants lie in files, which the converter would lose.
    """
    main = next(each for each in proto.opset_import if each.domain in {"", "ai.onnx"})
    if main.version >= opset:
        return proto
    if main.version >= _ALIKE_SINCE and all(node.op_type != _CHANGED for node in proto.graph.node):
        main.version = opset
        return proto
    hint = f"export it with opset {opset}, or onnx.version_converter.convert_version(model, {opset})"
    if any(is_beside(each) for each in constants_of(proto)):
        raise StageFailed(
            f"the graph has opset {main.version}, its weights lie in files, and opset {opset} is needed", hint
        )
    try:
        return version_converter.convert_version(proto, opset)
    except (RuntimeError, version_converter.ConvertError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StageFailed(
            f"opset {main.version} does not convert to {opset}, which is needed: {reason}", hint
        ) from error
