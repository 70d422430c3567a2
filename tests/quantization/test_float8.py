"""Pairs in E4M3 round as the format does, and saturate at the largest magnitude that calibration saw."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.float8 import E4M3_MAX, has_e4m3, to_e4m3

LARGEST = 3.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A session of one pair, converted from int8 in which 3 is the largest magnitude."""
    path = tmp_path_factory.mktemp("float8") / "pair.onnx"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(LARGEST / 127), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    inner = helper.make_tensor_value_info("q", TensorProto.INT8, ["n"])
    graph = helper.make_graph(nodes, "pair", [x], [y], constants, value_info=[inner])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    assert not has_e4m3(proto)
    to_e4m3(path)
    assert has_e4m3(onnx.load(path))
    onnx.checker.check_model(path, full_check=True)
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


@given(values=arrays(np.float32, st.integers(1, 20), elements=st.floats(-10, 10, width=32)))
def test_values_round_to_the_nearest_of_the_format_and_saturate(pair, values):
    (got,) = pair.run(None, {"x": values})
    scale = np.float32(np.float32(LARGEST / 127) * (127 / E4M3_MAX))
    wanted = np.clip(values / scale, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    inside = np.abs(values) <= LARGEST
    # Three bits of mantissa: half a step is a sixteenth; below the smallest normal number the step is 2**-9.
    assert (np.abs(got - values)[inside] <= np.maximum(np.abs(values[inside]) / 16, scale * 2**-10) * 1.0001).all()
    assert (np.abs(got[~inside]) <= LARGEST * 1.0001).all()
    assert (np.abs(got[~inside]) >= LARGEST * 0.999).all()
