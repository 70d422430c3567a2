"""Bias correction: what quantization adds to the mean of a channel is gone, in the form that biases had."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doors import A100, AVX2, VNNI, answers, relative, rows_for
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mlpack.core.model import Model, TensorSpec
from mlpack.quantization.bias import correct_biases
from mlpack.stages.quantize import Quantize

TARGETS = pytest.mark.parametrize("target", [VNNI, A100], ids=lambda target: target.name)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(count, *shape, seed=0):
    """Rows whose mean is not zero, as behind a Relu: there an error of the weights is one of the mean."""
    return np.abs(random(count, *shape, seed=seed))


def save(folder, nodes, inputs, weights, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims]) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "model.onnx")
    told = [TensorSpec(name=name, dtype="float32", dims=("batch", *dims)) for name, dims in inputs.items()]
    answer = tuple(TensorSpec(name=name, dtype="float32", dims=("batch", 1)) for name in outputs)
    return Model(path=folder, entry="model.onnx", format="onnx", inputs=tuple(told), outputs=answer)


def layer(folder, kind, *, bias=True, seed=0):
    """A graph of one product of each kind, with weights of few values: all of a channel are rounded one way."""
    weights = {"w": 0.013 + 0.002 * random(6, 4, 3, 3, seed=seed), "b": random(6, seed=seed + 1)}
    weights["w"][:, 0] = 1.0 + random(6, 3, 3, seed=seed + 2)
    read = ["x", "w", "b"] if bias else ["x", "w"]
    if kind == "Conv":
        node, dims = helper.make_node("Conv", read, ["y"], name="one", pads=[1, 1, 1, 1]), (4, 5, 5)
    elif kind == "depthwise":
        weights["w"] = weights["w"][:4, :1]
        weights["b"] = weights["b"][:4]
        node, dims = helper.make_node("Conv", read, ["y"], name="one", group=4), (4, 5, 5)
    elif kind == "ConvTranspose":
        weights["w"] = weights["w"].transpose(1, 0, 2, 3).copy()
        node, dims = helper.make_node("ConvTranspose", read, ["y"], name="one"), (4, 5, 5)
    else:
        matrix = weights["w"].reshape(6, -1)
        weights["w"] = matrix if kind == "Gemm turned" else matrix.T.copy()
        node, dims = helper.make_node("Gemm", read, ["y"], name="one", transB=int(kind == "Gemm turned")), (36,)
    return save(folder, [node], {"x": dims}, {name: array for name, array in weights.items() if name in read}), dims


def quantized(bench, model, rows, target, **options):
    told = {"numerics": "int8", "method": "static", "operators": "weighted", **options}
    return Quantize(**told).run(model, bench.job(parts={"calibration": bench.data(**rows)}, target=target)).model


def before_output(model, rows):
    """What the last product gives, before it is quantized."""
    proto = onnx.load(model.entry_path)
    maker = {output: node for node in proto.graph.node for output in node.output}
    name = proto.graph.output[0].name
    while maker[name].op_type in {"QuantizeLinear", "DequantizeLinear"}:
        name = maker[name].input[0]
    if name not in {each.name for each in proto.graph.output}:
        proto.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], rows)[0]


def mean_error(model, got, rows, axis):
    error = answers(model, rows)["y"] - before_output(got, rows)
    return np.abs(error.mean(axis=tuple(each for each in range(error.ndim) if each != axis % error.ndim))).max()


KINDS = {"Conv": 1, "depthwise": 1, "ConvTranspose": 1, "Gemm": -1, "Gemm turned": -1}


@TARGETS
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_channel_is_off_in_the_mean(bench, tmp_path, kind, bias, target):
    model, dims = layer(tmp_path, kind, bias=bias)
    rows = {"x": positive(40, *dims)}
    plain, done = (quantized(bench, model, rows, target, bias_correction=told) for told in (False, True))
    was, left = (mean_error(model, each, rows, KINDS[kind]) for each in (plain, done))
    onnx.checker.check_model(onnx.load(done.entry_path))
    # onnxruntime turns a float bias into steps when it runs the graph.
    assert left < 0.05 * was
    unseen = {"x": positive(40, *dims, seed=9)}
    assert mean_error(model, done, unseen, KINDS[kind]) < 0.5 * mean_error(model, plain, unseen, KINDS[kind])


def biases(model):
    """Of every product: the constant that its bias is, and the scales that it should have."""
    graph = onnx.load(model.entry_path).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            scales = [constants[maker[name].input[1]] for name in node.input[:2]]
            pair = maker.get(node.input[2])
            yield constants[pair.input[0] if pair else node.input[2]], pair, scales, constants


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
def test_integer_biases_stay_integers_in_the_steps_of_their_products(bench, tmp_path, bias):
    model, dims = layer(tmp_path, "Conv", bias=bias)
    done = quantized(bench, model, {"x": positive(40, *dims)}, VNNI, bias_correction=True)
    ((values, pair, (of_input, of_weights), constants),) = biases(done)
    assert values.dtype == np.int32
    assert pair.op_type == "DequantizeLinear"
    np.testing.assert_allclose(constants[pair.input[1]], of_input * of_weights, rtol=1e-6)
    assert not constants[pair.input[2]].any()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
def test_biases_of_tensorrt_graphs_stay_in_float(bench, tmp_path, bias):
    model, dims = layer(tmp_path, "Conv", bias=bias)
    done = quantized(bench, model, {"x": positive(40, *dims)}, A100, bias_correction=True)
    ((values, pair, _, _),) = biases(done)
    assert values.dtype == np.float32
    assert pair is None


@pytest.mark.parametrize("target", [VNNI, A100], ids=lambda target: target.name)
def test_weights_and_biases_in_other_files_are_found_there(bench, tmp_path, target):
    inside, outside = (tmp_path / name for name in ("inside", "outside"))
    inside.mkdir()
    outside.mkdir()
    # What is larger than a kilobyte goes into other files.
    weights = {"one": 1 + random(8, 300), "b": random(300, seed=2), "two": random(300, 260, seed=3)}
    nodes = [
        helper.make_node("Gemm", ["x", "one", "b"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "two"], ["y"], name="second"),
    ]
    model = save(inside, nodes, {"x": (8,)}, weights)
    moved = model.model_copy(update={"path": outside})
    onnx.save(onnx.load(model.entry_path), moved.entry_path, save_as_external_data=True, location="w", size_threshold=0)
    rows = {"x": positive(50, 8)}
    one, two = (quantized(bench, each, rows, target, equalize=True, bias_correction=True) for each in (model, moved))
    assert len(list(two.files())) > 1
    assert np.array_equal(answers(one, rows)["y"], answers(two, rows)["y"])
    for (values, *_), (other, *_) in zip(biases(one), biases(two), strict=True):
        assert np.array_equal(values, other)


def test_a_bias_that_two_products_read_is_corrected_for_each(bench, tmp_path):
    weights = {"one": 1 + random(8, 6), "two": 1 + random(8, 6, seed=1), "b": random(6, seed=2)}
    nodes = [
        helper.make_node("Gemm", ["x", "one", "b"], ["h"], name="first"),
        helper.make_node("Gemm", ["x", "two", "b"], ["y"], name="second"),
    ]
    model = save(tmp_path, nodes, {"x": (8,)}, weights, outputs=("y", "h"))
    rows = {"x": positive(50, 8)}
    for target in (VNNI, A100):
        done = quantized(bench, model, rows, target, bias_correction=True)
        first, second = (values for values, _, _, _ in biases(done))
        assert not np.array_equal(first, second)
        assert mean_error(model, done, rows, -1) < 1e-3


@TARGETS
def test_the_constant_behind_a_product_is_its_bias(bench, tmp_path, target):
    weights = {"w": 1 + 0.3 * random(8, 6), "b": random(6, seed=2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Add", ["b", "h"], ["y"], name="sum"),
    ]
    model = save(tmp_path, nodes, {"x": (3, 8)}, weights)
    rows = {"x": positive(50, 3, 8)}
    plain, done = (quantized(bench, model, rows, target, bias_correction=told) for told in (False, True))
    assert mean_error(model, done, rows, -1) < 1e-4 < mean_error(model, plain, rows, -1)


def test_a_product_between_activations_and_one_without_a_bias_stay(bench, tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("MatMul", ["h", "z"], ["y"], name="between"),
    ]
    model = save(tmp_path, nodes, {"x": (3, 8), "z": (6, 2)}, {"w": random(8, 6)})
    rows = {"x": positive(50, 3, 8), "z": positive(50, 6, 2)}
    plain, done = (quantized(bench, model, rows, VNNI, operators="all", bias_correction=told) for told in (False, True))
    assert plain.entry_path.read_bytes() == done.entry_path.read_bytes()


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 5))
def test_corrections_do_not_depend_on_where_batches_are_cut(kept, once, sizes, seed):
    model, made, dims = once
    x = positive(sum(sizes), *dims, seed=seed)
    done = []
    for cuts in ([sum(sizes)], sizes):
        path = kept.job().out / "model.onnx"
        path.write_bytes(made.entry_path.read_bytes())
        starts = np.cumsum([0, *cuts])
        batches = [{"x": x[start : start + size]} for start, size in zip(starts, cuts, strict=False)]
        assert correct_biases(onnx.load(model.entry_path), path, batches, threads=1, cut=True) == ["one"]
        done += [values for values, _, _, _ in biases(made.model_copy(update={"path": path.parent}))]
    np.testing.assert_allclose(done[0], done[1], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def once(kept):
    """A graph of one convolution, its quantized one, and the dims of a row."""
    model, dims = layer(kept.job().out, "Conv")
    return model, quantized(kept, model, {"x": positive(20, *dims)}, A100), dims


@pytest.mark.parametrize(
    ("name", "operators", "target"),
    [("conv_net", "all", VNNI), ("conv_net", "weighted", AVX2), ("transformer", "all", A100)],
    ids=lambda value: getattr(value, "name", value),
)
def test_whole_models_answer_nearly_the_same(bench, kept, name, operators, target):
    ready = kept.ready(name)
    plain, done = (
        quantized(bench, ready, rows_for(name, 64), target, operators=operators, bias_correction=told)
        for told in (False, True)
    )
    assert plain.entry_path.read_bytes() != done.entry_path.read_bytes()
    rows = rows_for(name, 32, seed=5)
    expected, was, got = (answers(each, rows)["output"] for each in (ready, plain, done))
    assert 0 < relative(expected, got) < 1.1 * relative(expected, was)
