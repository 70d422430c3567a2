"""The casts of the quantize stage: fp16 graphs, and bf16 weights for backends that execute in bf16."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import StageFailed

if TYPE_CHECKING:
    import onnx

    from mlpack.core.model import Model
    from mlpack.core.stage import Job

_FP16_MAX = 65504.0
_MASK = 1e4
# Below this a weight is a bias or a scale: nothing to gain, precision to lose.
_SMALL_WEIGHT = 256


def to_fp16(model: Model, job: Job) -> None:
    """Write the graph in fp16 with its inputs and outputs left in their own types.

    Raises:
        StageFailed: a weight is beyond fp16's range.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from mlpack.core.external_data import fill_in
    from mlpack.quantization.coverage import weight_range

    largest = weight_range(model.entry_path)
    if largest > _FP16_MAX:
        raise StageFailed(f"a weight of {largest:.3g} is beyond fp16's range of 65504", "use --bf16 on this model")
    with tempfile.TemporaryDirectory(dir=job.out.parent) as folder:
        # File to file: a graph with more than 2 GB of weights does not fit the message that it would go through.
        inferred = Path(folder) / "inferred.onnx"
        onnx.shape_inference.infer_shapes_path(model.entry_path, inferred)
        shaped = onnx.load(inferred, load_external_data=False)
    fill_in(shaped, model.path)
    _bound_masks(shaped.graph)
    proto = convert_float_to_float16(shaped, keep_io_types=True, disable_shape_infer=True, max_finite_val=_FP16_MAX)
    _write(proto, model, job)


def _bound_masks(graph: onnx.GraphProto) -> None:
    """Give masks a number that is as good as infinity to a softmax and that fp16 can add scores to."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    from mlpack.quantization.coverage import INFINITE

    attributes = (attribute for node in graph.node if node.op_type == "Constant" for attribute in node.attribute)
    for tensor in (*graph.initializer, *(each.t for each in attributes if each.HasField("t"))):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        if (np.abs(array) >= INFINITE).any():
            bounded = np.where(np.abs(array) >= INFINITE, np.copysign(_MASK, array), array).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(bounded, tensor.name))


def to_bf16(model: Model, job: Job) -> None:
    """Store float weights in bf16 behind a Cast; the backend executes in bf16.

    ONNX Runtime's CPU kernels have no bf16 and OpenVINO decides precision by session, so the numerics of this
    model are the graph's weights *and* the session's precision.
    """
    import ml_dtypes
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from mlpack.core.external_data import load_whole

    proto = load_whole(model.entry_path)
    casts: dict[str, onnx.NodeProto] = {}
    for weight in list(proto.graph.initializer):
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < _SMALL_WEIGHT:
            continue
        rounded = numpy_helper.to_array(weight).astype(ml_dtypes.bfloat16)
        stored = f"{weight.name}.bf16"
        proto.graph.initializer.remove(weight)
        proto.graph.initializer.append(
            helper.make_tensor(stored, TensorProto.BFLOAT16, weight.dims, rounded.tobytes(), raw=True)
        )
        name = f"{weight.name}/to_float"
        casts[weight.name] = helper.make_node("Cast", [stored], [weight.name], name=name, to=TensorProto.FLOAT)
    for node in reversed(list(casts.values())):
        proto.graph.node.insert(0, node)
    _write(proto, model, job)


def _write(proto: onnx.ModelProto, model: Model, job: Job) -> None:
    import onnx

    external = len(list(model.files())) > 1
    location = f"{model.entry}.data" if external else None
    onnx.save(
        proto, job.out / model.entry, save_as_external_data=external, all_tensors_to_one_file=True, location=location
    )
