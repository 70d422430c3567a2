"""Graphs run in pieces: the same answers, each piece within its bytes, subgraphs and shared values included."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpack.backends import onnxruntime_pieces
from mlpack.backends.onnxruntime_pieces import PiecesRunner, pieces
from mlpack.core.model import Model, TensorSpec

WIDTH = 16
LAYERS = 5
WEIGHT_BYTES = 2 * WIDTH * WIDTH


def graph():
    """Layers whose float16 weight is cast and turned before each product; the input is added again at the end."""
    random = np.random.default_rng(0)
    nodes, constants, last = [], [], "x"
    for at in range(LAYERS):
        weight = random.standard_normal((WIDTH, WIDTH)).astype(np.float16)
        constants.append(numpy_helper.from_array(weight, f"w{at}"))
        nodes += [
            helper.make_node("Cast", [f"w{at}"], [f"w{at}.float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", [f"w{at}.float"], [f"w{at}.turned"], perm=[1, 0]),
            helper.make_node("MatMul", [last, f"w{at}.turned"], [f"product{at}"]),
            helper.make_node("Tanh", [f"product{at}"], [f"y{at}"]),
        ]
        last = f"y{at}"
    branch = helper.make_graph(
        [helper.make_node("Add", [last, "x"], ["both"])], "then", [],
        [helper.make_tensor_value_info("both", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["y0"], ["same"])], "else", [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes.append(helper.make_node("If", ["flag"], ["out"], then_branch=branch, else_branch=other))
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", WIDTH])]
    return helper.make_model(
        helper.make_graph(nodes, "layers", given, out, constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


@pytest.fixture
def model(tmp_path):
    onnx.save(graph(), tmp_path / "model.onnx", save_as_external_data=True, location="sub.data", size_threshold=0)
    specs = (
        TensorSpec(name="x", dtype="float32", dims=("batch", WIDTH)), TensorSpec(name="flag", dtype="bool", dims=()),
    )  # fmt: skip
    return Model(path=tmp_path, entry="model.onnx", format="onnx", inputs=specs, on_disk=True)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 100])
def test_answers_are_those_of_the_whole(model, monkeypatch, layers, flag):
    monkeypatch.setattr(onnxruntime_pieces, "_PIECE_BYTES", layers * WEIGHT_BYTES)
    given = {"x": np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32), "flag": np.array(flag)}
    runner = PiecesRunner(model, ort.SessionOptions, ValueError)
    whole = ort.InferenceSession(str(model.entry_path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(runner(given)["out"], whole.run(None, given)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("layers", "count"), [(1, LAYERS), (2, 3), (100, 1)])
def test_a_piece_reads_no_more_than_its_bytes_and_every_node_is_in_one(layers, count):
    whole = graph().graph
    found = list(pieces(whole, layers * WEIGHT_BYTES))
    assert [node.output for piece in found for node in piece] == [node.output for node in whole.node]
    assert len(found) == count
    # What turns a weight stays with its product.
    for piece in found:
        assert [node.op_type for node in piece][:3] == ["Cast", "Transpose", "MatMul"]


def test_a_weight_that_is_larger_than_a_piece_is_a_piece():
    assert len(list(pieces(graph().graph, 1))) == LAYERS
