"""A Q/DQ graph as a torch module: forwards it is the graph, and what it learns is written into the very graph."""

import numpy as np
import onnx
import pytest
import torch
from doors import A100, AVX2, VNNI, relative, rows_for
from onnx import numpy_helper

from mlpack.quantization.qdq_graph import QdqGraph
from mlpack.quantization.shown import showing, tensors_of
from mlpack.quantization.straight_through import Rounded
from mlpack.quantization.trainable import Trainable
from mlpack.stages.quantize import Quantize

MODELS = ("conv_net", "dead_channels", "residual", "mlp", "twice", "transformer", "tagger", "siamese")
SAME = 1e-4


def quantized(bench, model, name, target=VNNI, **options):
    told = {"numerics": "int8", "method": "static", "operators": "all", **options}
    job = bench.job(parts={"calibration": bench.data(**rows_for(name, 64))}, target=target)
    return Quantize(**told).run(model, job).model


def literally(graph, rows, folder):
    """What ONNX Runtime answers that takes every Q/DQ pair as it stands."""
    session = showing(graph, [], folder / "literal.onnx", 1, literal=True)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, rows), strict=True))


def by_torch(module, rows):
    with torch.no_grad():
        given = module({name: torch.tensor(array) for name, array in rows.items()})
    return {name: each.detach().numpy() for name, each in given.items()}


def shaken(graph, *, learn_ranges=True, seed=0):
    """The module after it has learnt something, whatever that is."""
    module, random = Trainable(graph, learn_ranges=learn_ranges), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.weights:
            weight.add_(0.05 * weight.abs().mean() * torch.randn(weight.shape, generator=random))
        for factor in module.factors:
            factor.add_(0.05 * torch.randn(factor.shape, generator=random))
    return module


@pytest.mark.parametrize(
    ("operators", "target"),
    [("all", VNNI), ("weighted", VNNI), ("weighted", A100)],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("name", MODELS)
def test_torch_computes_what_the_graph_says_before_and_after(bench, kept, tmp_path, name, operators, target):
    model = quantized(bench, kept.ready(name), name, target, operators=operators)
    graph, rows = onnx.load(model.entry_path), rows_for(name, 16, seed=3)
    module = shaken(graph)
    before, after = literally(graph, rows, tmp_path), literally(module.written(), rows, tmp_path)
    for each, one in ((Trainable(graph, learn_ranges=True), graph), (module, module.written())):
        tensors = each.tensors()
        session = showing(one, tensors, tmp_path / "shown.onnx", 1, literal=True)
        difference, operator = each.farthest({**rows, **tensors_of(session, tensors, rows)})
        assert difference < SAME, operator
        assert by_torch(each, rows).keys() == before.keys()
    for output, array in before.items():
        assert relative(array, after[output]) > SAME, "it has learnt something"


@pytest.mark.parametrize("target", [AVX2, A100], ids=lambda target: target.name)
@pytest.mark.parametrize("name", ["conv_net", "transformer"])
def test_nodes_types_and_places_stay(bench, kept, name, target):
    before = onnx.load(quantized(bench, kept.ready(name), name, target).entry_path)
    after = shaken(before).written()
    assert [node.SerializeToString() for node in after.graph.node] == [
        node.SerializeToString() for node in before.graph.node
    ]
    changed = 0
    for one, two in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (one.name, one.data_type, list(one.dims)) == (two.name, two.data_type, list(two.dims))
        changed += not np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(two))
    assert changed > len(before.graph.initializer) / 4
    assert [each.SerializeToString() for each in (*before.graph.input, *before.graph.output)] == [
        each.SerializeToString() for each in (*after.graph.input, *after.graph.output)
    ]


def test_what_is_not_learnt_stays_to_the_bit(bench, kept):
    before = onnx.load(quantized(bench, kept.ready("transformer"), "transformer").entry_path)
    same = Trainable(before, learn_ranges=True).written()
    ranges = shaken(before, learn_ranges=False).written()
    steps = {node.input[1] for node in before.graph.node if node.op_type == "QuantizeLinear"}
    constants = {each.name: numpy_helper.to_array(each) for each in before.graph.initializer}
    for each in same.graph.initializer:
        assert np.array_equal(constants[each.name], numpy_helper.to_array(each)), each.name
    kept_steps = {each.name: numpy_helper.to_array(each) for each in ranges.graph.initializer if each.name in steps}
    assert kept_steps
    assert all(np.array_equal(constants[name], array) for name, array in kept_steps.items())


def test_seven_bits_stay_seven_bits(bench, kept):
    before = onnx.load(quantized(bench, kept.ready("conv_net"), "conv_net", AVX2).entry_path)
    module = Trainable(before, learn_ranges=True)
    with torch.no_grad():
        for weight in module.weights:
            weight.mul_(10)
    integers = [
        numpy_helper.to_array(each)
        for each in module.written().graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) > 1
    ]
    assert integers
    assert {int(np.abs(each).max()) for each in integers} == {64}


def test_the_step_of_an_integer_bias_stays_the_product_of_its_layers_steps(bench, kept):
    before = onnx.load(quantized(bench, kept.ready("conv_net"), "conv_net").entry_path)
    after = QdqGraph(shaken(before).written())
    layers = [node for node in after.proto.graph.node if node.op_type in {"Conv", "Gemm"}]
    assert len(layers) == 3
    for node in layers:
        of_input, of_weight, of_bias = (after.array(after.makers[name].input[1]) for name in node.input)
        np.testing.assert_allclose(of_bias.reshape(-1), (of_input * of_weight).reshape(-1), rtol=1e-6)
        assert after.array(after.unquantized(node.input[2])).dtype == np.int32


def test_the_gradient_of_a_step_is_that_of_lsq():
    """Esser et al. 2020, equation 3: round(x / s) − x / s inside of the ends, the end itself outside."""
    x = torch.tensor([-9.0, -0.7, 0.2, 1.4, 2.6, 40.0], requires_grad=True)
    step, zero = torch.tensor(0.5, requires_grad=True), torch.tensor(3.0)
    (values := (Rounded.apply(x, step, zero, 0.0, 15.0) - zero) * step).sum().backward()
    steps = x.detach() / 0.5
    inside = (steps >= -3) & (steps <= 12)
    expected = torch.where(inside, steps.round() - steps, steps.clamp(-3, 12))
    torch.testing.assert_close(step.grad, expected.sum())
    torch.testing.assert_close(x.grad, inside.float())
    torch.testing.assert_close(values.detach(), steps.round().clamp(-3, 12) * 0.5)


def test_steps_along_an_axis_have_gradients_of_their_own():
    x = torch.randn(4, 3, 5, requires_grad=True)
    step, zero = torch.full((1, 3, 1), 0.1, requires_grad=True), torch.zeros(1, 3, 1)
    (Rounded.apply(x, step, zero, -5.0, 5.0) * step).sum().backward()
    whole = torch.tensor(0.1, requires_grad=True)
    (Rounded.apply(x.detach(), whole, torch.tensor(0.0), -5.0, 5.0) * whole).sum().backward()
    assert step.grad.shape == (1, 3, 1)
    torch.testing.assert_close(step.grad.sum(), whole.grad)
