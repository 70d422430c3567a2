"""Every operator that a graph can be trained through answers in torch what it answers in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mlpack.errors import StageFailed
from mlpack.quantization.operators import OPERATORS
from mlpack.quantization.trainable import Trainable

OPSET = 20


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape, seed=0):
    return np.abs(random(*shape, seed=seed)) + 0.1


def whole(*numbers):
    return np.array(numbers, np.int64)


IMAGE, KERNEL, LINE = random(2, 4, 7, 6), random(6, 4, 3, 2, seed=1), random(2, 3, 5)
SEQUENCE = random(5, 2, 3)
FLAGS = np.array([True, False, True])
TENSOR = numpy_helper.from_array


# Operator, attributes, inputs; None is an input left out. Constants are those after the first, as in real graphs.
def recurrent(gates, directions, **more):
    weights = [random(directions, gates * 4, 3, seed=1), random(directions, gates * 4, 4, seed=2)]
    told = {"hidden_size": 4, **({"direction": "bidirectional"} if directions > 1 else {}), **more}
    return told, [SEQUENCE, *weights, random(directions, 2 * gates * 4, seed=3)]


CASES = [
    *((kind, {}, [LINE, random(2, 3, 5, seed=1)]) for kind in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum")),
    ("Div", {}, [whole(7, -7, 9), whole(2, 2, 4)]),
    ("Pow", {}, [positive(2, 3), np.float32(3)]),
    *(
        (kind, {}, [positive(2, 3)])
        for kind in ("Sqrt", "Exp", "Log", "Erf", "Neg", "Abs", "Reciprocal", "Sin", "Cos", "Floor", "Ceil", "IsNaN")
    ),
    *(
        (kind, {}, [2 * random(3, 4)])
        for kind in ("Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish", "Mish", "Identity", "Dropout", "Gelu",
                     "LeakyRelu", "Elu", "HardSigmoid", "Softmax", "LogSoftmax")
    ),
    ("Gelu", {"approximate": "tanh"}, [random(3, 4)]),
    ("LeakyRelu", {"alpha": 0.3}, [random(3, 4)]),
    ("HardSigmoid", {"alpha": 0.1, "beta": 0.4}, [random(3, 4)]),
    ("Softmax", {"axis": 0}, [random(3, 4)]),
    ("PRelu", {}, [random(2, 4, 3), positive(4, 1)]),
    ("Where", {}, [FLAGS, random(2, 3), random(2, 3, seed=1)]),
    *((kind, {}, [whole(1, 2, 3), whole(3, 2, 1)]) for kind in ("Equal", "Less", "LessOrEqual", "Greater",
                                                                 "GreaterOrEqual")),
    *((kind, {}, [FLAGS, ~FLAGS]) for kind in ("And", "Or")),
    ("Not", {}, [FLAGS]),
    ("MatMul", {}, [random(2, 3, 5), random(5, 4)]),
    ("Gemm", {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}, [random(5, 3), random(4, 5), random(4)]),
    ("Gemm", {}, [random(3, 5), random(5, 4)]),
    ("Clip", {}, [random(3, 4), np.float32(-0.5), np.float32(0.5)]),
    ("Clip", {}, [random(3, 4), None, np.float32(0.5)]),
    ("Shape", {}, [LINE]),
    ("Shape", {"start": 1, "end": -1}, [LINE]),
    ("Reshape", {}, [LINE, whole(0, -1)]),
    ("Flatten", {"axis": 2}, [LINE]),
    ("Squeeze", {}, [random(2, 1, 3, 1), whole(1, -1)]),
    ("Squeeze", {}, [random(2, 1, 3, 1)]),
    ("Unsqueeze", {}, [LINE, whole(0, -1)]),
    ("Expand", {}, [random(3, 1), whole(2, 1, 4)]),
    ("Split", {"axis": -1}, [LINE, whole(2, 3)]),
    ("Split", {"axis": 2, "num_outputs": 2}, [LINE]),
    ("Slice", {}, [LINE, whole(1, -1), whole(9, -(2**62)), whole(1, 2), whole(1, -2)]),
    ("Slice", {}, [LINE, whole(0), whole(1)]),
    ("Gather", {"axis": 1}, [LINE, np.array([[0, -1], [2, 0]])]),
    ("GatherElements", {"axis": 1}, [random(2, 3), np.array([[0, -1], [2, 0]])]),
    ("GatherND", {}, [random(2, 3), np.array([[0, 1], [1, 2]])]),
    ("Pad", {}, [LINE, whole(0, 1, 0, 0, 0, 2), np.float32(3)]),
    ("Pad", {}, [LINE, whole(1, 2), None, whole(-1)]),
    ("Tile", {}, [random(2, 3), whole(2, 2)]),
    ("Range", {}, [np.int64(2), np.int64(9), np.int64(3)]),
    ("Concat", {"axis": 1}, [random(2, 3), random(2, 1)]),
    ("Transpose", {"perm": [2, 0, 1]}, [LINE]),
    ("Transpose", {}, [LINE]),
    ("Cast", {"to": TensorProto.INT64}, [3 * LINE]),
    ("Cast", {"to": TensorProto.INT16}, [3 * LINE]),
    ("Trilu", {"upper": 0}, [random(4, 4), np.int64(1)]),
    ("CumSum", {}, [random(3, 4), np.int64(1)]),
    ("Einsum", {"equation": "bij,jk->bik"}, [LINE, random(5, 2)]),
    ("ConstantOfShape", {"value": TENSOR(np.array([2.5], np.float32))}, [whole(2, 3)]),
    *(
        (kind, {"keepdims": keep}, [LINE, whole(0, -1)])
        for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")
        for keep in (0, 1)
    ),
    ("ReduceSum", {}, [LINE]),
    ("ReduceSum", {"noop_with_empty_axes": 1}, [LINE]),
    ("Conv", {"pads": [1, 0, 1, 0], "strides": [2, 1]}, [IMAGE, KERNEL, random(6)]),
    ("Conv", {"pads": [1, 0, 0, 1], "dilations": [1, 2]}, [IMAGE, KERNEL]),
    ("Conv", {"group": 4, "pads": [1, 1]}, [random(2, 4, 9), random(4, 1, 3)]),
    ("ConvTranspose", {"strides": [2, 2], "output_padding": [1, 0]}, [IMAGE, random(4, 3, 3, 2), random(3)]),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}, [IMAGE]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, [IMAGE]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [IMAGE]),
    ("GlobalAveragePool", {}, [IMAGE]),
    ("GlobalMaxPool", {}, [IMAGE]),
    ("LayerNormalization", {"epsilon": 1e-3}, [LINE, random(5), random(5, seed=1)]),
    ("BatchNormalization", {}, [IMAGE, random(4), random(4, seed=1), random(4, seed=2), positive(4)]),
    ("InstanceNormalization", {}, [IMAGE, random(4), random(4, seed=1)]),
    ("LSTM", *recurrent(4, 1)),
    ("LSTM", *recurrent(4, 2)),
    ("GRU", *recurrent(3, 1, linear_before_reset=1)),
    ("GRU", *recurrent(3, 2, linear_before_reset=1)),
]  # fmt: skip
OUTPUTS = {"Split": 2, "LSTM": 3, "GRU": 2}
# What has no weight of its own is followed by a product that has one: without any there is nothing to train.
TAIL = random(1, 2)


def graph_of(kind, attributes, inputs):
    """A graph of this node, whose first input is the graph's, beside a product with a weight; and what it is fed."""
    names = ["" if each is None else f"in{at}" for at, each in enumerate(inputs)]
    outputs = [f"out{at}" for at in range(OUTPUTS.get(kind, 1))]
    nodes = [
        helper.make_node(kind, names, outputs, name="one", **attributes),
        helper.make_node("MatMul", ["beside", "tail"], ["product"], name="beside"),
    ]
    fed = {"in0": np.asarray(inputs[0]), "beside": random(3, 1)}
    constants = {name: each for name, each in zip(names[1:], inputs[1:], strict=True) if each is not None}
    graph = helper.make_graph(
        nodes,
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
            for name, each in fed.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in (*outputs, "product")],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in {**constants, "tail": TAIL}.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), fed


def by_onnxruntime(graph, fed):
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, fed), strict=True))


@pytest.mark.parametrize(
    ("kind", "attributes", "inputs"),
    CASES,
    ids=[f"{kind}{at}" for at, (kind, *_) in enumerate(CASES)],
)
def test_torch_answers_as_onnxruntime_does(kind, attributes, inputs):
    graph, fed = graph_of(kind, attributes, inputs)
    expected = by_onnxruntime(graph, fed)
    with torch.no_grad():
        got = Trainable(graph, learn_ranges=False)({name: torch.tensor(each) for name, each in fed.items()})
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].numpy().dtype == array.dtype
        np.testing.assert_allclose(got[name].numpy(), array, rtol=1e-5, atol=1e-5)


def test_every_operator_has_a_case():
    assert OPERATORS.keys() - {kind for kind, *_ in CASES} == {"Constant"}


@pytest.mark.parametrize(
    ("attributes", "value"), [({"value_float": 2.0}, 2.0), ({"value": TENSOR(np.float32([1, 2]))}, [1.0, 2.0])]
)
def test_constants_may_be_nodes(attributes, value):
    constant = helper.make_node("Constant", [], ["c"], **attributes)
    graph, fed = graph_of("Add", {}, [random(1, 2), np.float32(0)])
    graph.graph.node.insert(0, constant)
    graph.graph.node[1].input[1] = "c"
    with torch.no_grad():
        got = Trainable(graph, learn_ranges=False)({name: torch.tensor(each) for name, each in fed.items()})
    np.testing.assert_allclose(got["out0"], fed["in0"] + np.float32(value))


REFUSED = [
    ("Conv", {"auto_pad": "SAME_UPPER"}, [IMAGE, KERNEL], "auto_pad SAME_UPPER"),
    ("Pad", {"mode": "reflect"}, [LINE, whole(0, 1, 0, 0, 0, 2)], "Pad in mode reflect"),
    ("GatherND", {"batch_dims": 1}, [random(2, 3), np.array([[1], [2]])], "GatherND with batch_dims"),
    ("ConvTranspose", {"pads": [1, 0, 0, 0]}, [IMAGE, random(4, 3, 3, 2)], "ConvTranspose with uneven padding"),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 0, 0]}, [IMAGE], "AveragePool with uneven padding"),
    ("CumSum", {"reverse": 1}, [random(3, 4), np.int64(1)], "CumSum that is exclusive or reverse"),
    ("GRU", *recurrent(3, 1), "a GRU with lengths, or that resets before it multiplies,"),
    ("LSTM", {**recurrent(4, 1)[0], "direction": "reverse"}, recurrent(4, 1)[1], "a recurrent layer read backwards"),
    ("LSTM", recurrent(4, 1)[0], [*recurrent(4, 1)[1], np.array([5, 3], np.int32)], "an LSTM with lengths"),
    ("MaxPool", {"kernel_shape": [2, 2]}, [IMAGE], "MaxPool with 2 outputs"),
    ("TopK", {}, [LINE, whole(2)], "operator TopK"),
    ("Cast", {"to": TensorProto.BFLOAT16}, [LINE], "Cast to bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "attributes", "inputs", "what"), REFUSED, ids=[f"{each[0]}" for each in REFUSED])
def test_what_cannot_be_trained_through_is_refused_by_name(kind, attributes, inputs, what):
    graph, fed = graph_of(kind, attributes, inputs)
    if "2 outputs" in what:
        graph.graph.node[0].output.append("where")
    with pytest.raises(StageFailed, match=what) as refused:
        Trainable(graph, learn_ranges=False)({name: torch.tensor(each) for name, each in fed.items()})
    assert "cannot be trained through" in refused.value.message
    assert "--train" in refused.value.hint


@pytest.mark.parametrize(("attributes", "opset"), [({"axis": 1}, 13), ({"axis": 1, "split": [1, 3]}, 11)])
def test_a_split_of_older_opsets_is_trained_through(attributes, opset):
    graph, fed = graph_of("Split", attributes, [random(2, 4)])
    graph.opset_import[0].version = opset
    expected = by_onnxruntime(graph, fed)
    with torch.no_grad():
        got = Trainable(graph, learn_ranges=False)({name: torch.tensor(each) for name, each in fed.items()})
    for name in ("out0", "out1"):
        np.testing.assert_array_equal(got[name].numpy(), expected[name])


@pytest.mark.parametrize(
    ("kind", "attributes", "inputs"),
    [
        ("Pad", {"pads": [0, 1, 0, 0, 0, 2]}, [LINE]),
        ("Slice", {"axes": [1], "starts": [0], "ends": [2]}, [LINE]),
    ],
    ids=["opset 10", "opset 9"],
)
def test_an_operator_of_an_older_opset_is_no_fault_of_ours(kind, attributes, inputs):
    graph, fed = graph_of(kind, attributes, inputs)
    with pytest.raises(StageFailed, match="cannot be trained through"):
        Trainable(graph, learn_ranges=False)({name: torch.tensor(each) for name, each in fed.items()})


def test_a_graph_without_weights_cannot_learn():
    graph, _ = graph_of("Relu", {}, [LINE])
    del graph.graph.node[1:], graph.graph.output[1:], graph.graph.initializer[:]
    with pytest.raises(StageFailed, match="a graph without weights of its own"):
        Trainable(graph, learn_ranges=False)
