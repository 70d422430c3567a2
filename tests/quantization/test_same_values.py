"""A tensor in another shape is observed once."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.calibrate import calibrate
from mlpack.quantization.observers import observer
from mlpack.quantization.same_values import sources


@pytest.fixture
def graph():
    """y = x w in three more shapes, and a constant in another one."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["split"]),
        helper.make_node("Transpose", ["split"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Flatten", ["turned"], ["flat"]),
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("Unsqueeze", ["x", "axis"], ["wide"]),
        helper.make_node("Relu", ["flat"], ["z"]),
    ]
    weights = {
        "w": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32),
        "shape": np.array([-1, 2, 3]),
        "axis": np.array([1]),
    }
    made = helper.make_graph(
        nodes,
        "moved",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 6])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


TENSORS = ["z", "flat", "split", "turned", "y", "x", "wide", "same"]


def test_the_source_is_the_first_that_has_the_values(graph):
    own = {"z": "z", "x": "x", "wide": "x", "same": "same"}
    assert sources(graph, TENSORS) == own | dict.fromkeys(["flat", "split", "turned", "y"], "y")


@pytest.mark.parametrize("method", ["minmax", "moving_average", "percentile", "entropy", "mse"])
def test_ranges_are_those_of_each_alone(graph, method):
    x = np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32)
    x[5, 2] = np.inf

    def found(tensors):
        make = observer(method, symmetric=False, cut=99.9)
        batches = [{"x": x[:32]}, {"x": x[32:]}]
        return {each.tensor: each for each in calibrate(graph, tensors, batches, make, threads=1, cut=True)}

    together = found(TENSORS)
    assert list(together) == TENSORS
    assert together["wide"].infinite == together["x"].infinite == 1
    assert together["flat"].infinite == together["y"].infinite > 0
    assert together == {name: found([name])[name] for name in TENSORS}
    assert together["flat"].model_copy(update={"tensor": "y"}) == together["y"]
