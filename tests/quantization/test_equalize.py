"""Cross-layer equalization: the graph computes what it did, and channels of layers in a row have even ranges."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.equalize import equalized

SIDE = 6


class Net:
    """A chain of layers with weights whose channels have ranges of very different sizes."""

    def __init__(self, seed, *dims):
        self.random = np.random.default_rng(seed)
        self.dims, self.width, self.tensor = dims, dims[0], "x"
        self.nodes, self.weights, self.outputs = [], {}, []

    def uneven(self, *shape):
        """Each first axis has a size of its own, over three decades."""
        sizes = 10.0 ** self.random.uniform(-1.5, 1.5, (shape[0], *[1] * (len(shape) - 1)))
        return (sizes * self.random.standard_normal(shape)).astype(np.float32)

    def node(self, kind, *more, **attributes):
        made = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.tensor, *more], [made], name=f"n{made}", **attributes))
        self.tensor = made
        return self

    def constant(self, array):
        name = f"c{len(self.weights)}"
        self.weights[name] = array
        return name

    def layer(self, kind, width, *, bias=True):
        before = self.width
        told, attributes = [], {}
        if kind == "Gemm":
            turned = bool(self.random.integers(2))
            matrix = self.uneven(width, before)
            told, attributes = [self.constant(matrix if turned else matrix.T.copy())], {"transB": int(turned)}
        else:
            groups = {"Conv": 1, "depthwise": before, "grouped": 2}[kind]
            width = before if kind == "depthwise" else width
            told = [self.constant(self.uneven(width, before // groups, 3, 3))]
            attributes = {"group": groups, "pads": [1, 1, 1, 1]}
        if bias:
            told.append(self.constant(self.uneven(width)))
        self.width = width
        return self.node("Gemm" if kind == "Gemm" else "Conv", *told, **attributes)

    def clip(self, low, high):
        ends = [self.constant(np.array(low, np.float32)), "" if high is None else self.constant(np.float32(high))]
        return self.node("Clip", *ends)

    def made(self):
        outputs = [*self.outputs, self.tensor]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *self.dims])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in self.weights.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(proto)

    def rows(self):
        return np.random.default_rng(5).standard_normal((3, *self.dims)).astype(np.float32)


def run(proto, rows):
    onnx.checker.check_model(proto)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": rows})


def same(net, proto, before):
    for one, two in zip(before, run(proto, net.rows()), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def ranges(proto, node, axis):
    """The largest absolute weight by channel of an axis."""
    constants = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    (found,) = [each for each in proto.graph.node if each.name == node]
    weight = constants[found.input[1]]
    if found.op_type == "Gemm" and not any(each.name == "transB" and each.i for each in found.attribute):
        weight = weight.T
    return np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(axis=1)


BETWEEN = st.sampled_from(["Relu", "nothing", "Clip", "ReLU6", "branch", "output"])


@given(
    seed=st.integers(0, 99),
    layers=st.lists(
        st.tuples(st.sampled_from(["Conv", "depthwise", "grouped"]), st.sampled_from([2, 4]), st.booleans(), BETWEEN),
        min_size=1, max_size=4,
    ),
    flat=st.booleans(),
)  # fmt: skip
def test_random_graphs_compute_what_they_did(seed, layers, flat):
    net = Net(seed, 4) if flat else Net(seed, 4, SIDE, SIDE)
    for kind, width, bias, between in layers:
        net.layer("Gemm" if flat else kind, width, bias=bias)
        if between == "Relu":
            net.node("Relu")
        elif between == "Clip":
            net.clip(0, None)
        elif between == "ReLU6":
            net.clip(0, 6)
        elif between == "output":
            net.outputs.append(net.tensor)
        elif between == "branch":
            tensor = net.tensor
            net.node("Sigmoid").node("Add", tensor)
    net.layer("Gemm" if flat else "Conv", 3)
    proto = net.made()
    before = run(proto, net.rows())
    equalized(proto)
    same(net, proto, before)


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
@pytest.mark.parametrize("between", ["Relu", "Clip", "nothing"])
def test_the_ranges_of_a_pair_are_even(kind, between):
    net = (Net(1, 4) if kind == "Gemm" else Net(1, 4, SIDE, SIDE)).layer(kind, 8)
    if between != "nothing":
        net.node("Relu") if between == "Relu" else net.clip(0, None)
    proto = net.layer(kind, 5).made()
    before, middle = run(proto, net.rows()), {f"t{index}" for index in range(len(net.nodes) - 1)}
    assert equalized(proto) == [f"{name}_equalized" for name in sorted(middle)]
    same(net, proto, before)
    np.testing.assert_allclose(ranges(proto, "nt0", 0), ranges(proto, net.nodes[-1].name, 1), rtol=1e-5)
    named = {name for node in proto.graph.node for name in node.output} | {each.name for each in proto.graph.value_info}
    assert not named & middle, "what holds other values has another name"


def test_a_depthwise_layer_in_between_is_even_with_both():
    net = Net(2, 4, SIDE, SIDE).layer("Conv", 8).node("Relu").layer("depthwise", 8).node("Relu").layer("Conv", 3)
    proto = net.made()
    before = run(proto, net.rows())
    equalized(proto)
    same(net, proto, before)
    np.testing.assert_allclose(ranges(proto, "nt0", 0), ranges(proto, "nt2", 0), rtol=0.01)
    np.testing.assert_allclose(ranges(proto, "nt2", 0), ranges(proto, "nt4", 1), rtol=0.01)


def test_channels_of_zeros_stay_as_they_are():
    net = Net(3, 4).layer("Gemm", 6).node("Relu").layer("Gemm", 5)
    (one, bias, two), (first, last) = list(net.weights)[:3], (net.nodes[0], net.nodes[-1])
    turned = [any(each.name == "transB" and each.i for each in node.attribute) for node in (first, last)]
    (net.weights[one] if turned[0] else net.weights[one].T)[2] = 0
    (net.weights[two].T if turned[1] else net.weights[two])[4] = 0
    proto = net.made()
    before = run(proto, net.rows())
    equalized(proto)
    same(net, proto, before)
    after = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    assert np.array_equal(after[bias][[2, 4]], net.weights[bias][[2, 4]])
    assert not np.array_equal(after[bias], net.weights[bias])


@pytest.mark.parametrize("why", ["ReLU6", "below zero", "branch", "output", "Sigmoid"])
def test_what_cannot_be_equalized_stays_as_it_is(why):
    net = Net(4, 4, SIDE, SIDE).layer("Conv", 8)
    if why == "ReLU6":
        net.clip(0, 6)
    elif why == "below zero":
        net.clip(-1, None)
    elif why == "branch":
        tensor = net.tensor
        net.node("Relu").layer("Conv", 8).node("Add", tensor)
        net.outputs.append("t2")
    elif why == "output":
        net.outputs.append(net.tensor)
    else:
        net.node("Sigmoid")
    proto = net.layer("Conv", 3).made()
    text = proto.SerializeToString()
    assert equalized(proto) == []
    assert proto.SerializeToString() == text


def test_weights_that_two_layers_share_become_two():
    net = Net(5, 4).layer("Gemm", 4).node("Relu").layer("Gemm", 4).node("Relu").layer("Gemm", 3)
    net.nodes[2].input[1] = net.nodes[0].input[1]
    del net.nodes[2].attribute[:]
    net.nodes[2].attribute.extend(net.nodes[0].attribute)
    proto = net.made()
    before = run(proto, net.rows())
    assert equalized(proto)
    same(net, proto, before)
    assert proto.graph.node[0].input[1] != proto.graph.node[2].input[1]


def test_what_a_branch_of_an_if_reads_stays_as_it_is():
    net = Net(6, 4).layer("Gemm", 4)
    inside = [
        helper.make_graph(
            [helper.make_node(kind, ["t0"], [f"{kind}_out"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, ["batch", 4])],
        )
        for kind in ("Relu", "Neg")
    ]
    proto = net.layer("Gemm", 3).made()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "told"))
    proto.graph.node.append(
        helper.make_node("If", ["told"], ["z"], then_branch=inside[0], else_branch=inside[1], name="if")
    )
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4]))
    assert equalized(proto) == []
    assert run(proto, net.rows())[1].min() == 0
