"""Int8 by the rules of the target, casts, what is refused, and what the calibration looks at."""

from hashlib import sha256

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doors import A100, ARM, AVX2, VNNI, answers, relative, rows_for
from onnx import TensorProto, helper, numpy_helper

from mlpack.backends import BACKENDS
from mlpack.core.backend_options import BackendOptions
from mlpack.core.dataset import Batch
from mlpack.core.model import Model, TensorSpec
from mlpack.core.targets import load_target
from mlpack.errors import MlpackError, StageFailed, UsageError
from mlpack.stages.compile import Compile
from mlpack.stages.quantize import Quantize

L4 = load_target("l4")


class Graph:
    """A quantized file, taken apart."""

    def __init__(self, model):
        self.graph = onnx.load(model.entry_path).graph
        self.weights = {each.name: each for each in self.graph.initializer}
        self.made_by = {output: node for node in self.graph.node for output in node.output}
        self.pairs = [node for node in self.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]

    def of(self, operator):
        return [node for node in self.graph.node if node.op_type == operator]

    def value(self, name):
        return numpy_helper.to_array(self.weights[name])

    def around(self, pair):
        """The operators that give and that take what stands in a pair."""
        ends = {pair.input[0], *(node.output[0] for node in self.pairs if pair.output[0] in node.input)}
        return {node.op_type for node in self.graph.node if ends & {*node.input, *node.output}}

    def range(self, pair):
        """The lowest and the highest value that the integers of a pair stand for."""
        step, point = self.value(pair.input[1]), self.value(pair.input[2])
        ends = np.iinfo(point.dtype)
        return tuple((end - int(point)) * float(step) for end in (ends.min, ends.max))

    def zero_points(self):
        return [self.value(node.input[2]) for node in self.pairs]


def run(bench, model, target, rows, **options):
    parts = {} if rows is None else {"calibration": bench.data(**rows)}
    return Quantize(**{"numerics": "int8", **options}).run(model, bench.job(parts=parts, target=target))


@pytest.fixture(scope="module")
def static(kept):
    """Static int8 of a tiny model for a target, made once."""
    made = {}

    def make(name, target):
        if (name, target.name) not in made:
            rows = rows_for(name, 64)
            made[name, target.name] = run(kept, kept.ready(name), target, rows, method="static", operators="weighted")
        return made[name, target.name]

    return make


def test_tensorrt_graphs_are_symmetric_with_weights_behind_their_own_pairs(static):
    graph = Graph(static("conv_net", A100).model)
    zero_points = graph.zero_points()
    assert zero_points
    assert all(each.dtype == np.int8 and not each.any() for each in zero_points)
    for node in [*graph.of("Conv"), *graph.of("Gemm")]:
        dequantize = graph.made_by[node.input[1]]
        quantize = graph.made_by[dequantize.input[0]]
        assert (dequantize.op_type, quantize.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert graph.weights[quantize.input[0]].data_type == TensorProto.FLOAT
        assert graph.value(quantize.input[1]).size == graph.weights[quantize.input[0]].dims[0], "one scale a channel"
        assert graph.weights[node.input[2]].data_type == TensorProto.FLOAT, "the bias stays float"


@pytest.mark.parametrize("operators", ["weighted", "all"])
def test_tensorrt_adds_up_inside_the_kernel_of_a_convolution(bench, kept, operators):
    """Between a convolution and the sum or activation after it stands no pair; before the other summand one does."""
    model = kept.ready("residual")
    made = run(bench, model, A100, rows_for("residual", 64), method="static", operators=operators).model
    graph = Graph(made)
    sums = [node for node in graph.of("Add") if not any(name in graph.weights for name in node.input)]
    assert len(sums) == 2
    for node in sums:
        kinds = sorted(graph.made_by[name].op_type for name in node.input)
        assert kinds == ["Conv", "DequantizeLinear"], node.name
    if operators == "weighted":
        behind = {graph.made_by[node.input[0]].op_type for node in graph.of("Relu")}
        assert behind == {"Conv", "Add"}
        assert all(not graph.made_by[name].op_type.startswith("Conv") for name in _rounded(graph))
    rows = rows_for("residual", 16, seed=3)
    assert relative(answers(model, rows)["output"], answers(made, rows)["output"]) < 0.05


def _rounded(graph):
    """What is given to a QuantizeLinear and is computed."""
    given = [node.input[0] for node in graph.of("QuantizeLinear")]
    return [
        name for name in given if name in graph.made_by and name not in graph.weights and not _shortcut(graph, name)
    ]


def _shortcut(graph, name):
    """A convolution on the other side of a sum is rounded there."""
    return any("beside" in node.name for node in graph.pairs if name in node.input)


def test_vnni_graphs_have_unsigned_activations_and_signed_weights(static):
    graph = Graph(static("conv_net", VNNI).model)
    for node in graph.of("QuantizeLinear"):
        point = graph.value(node.input[2])
        assert point.dtype == np.uint8 or (point == 0 and "Conv" in graph.around(node))
    for node in graph.of("Conv"):
        assert graph.value(graph.made_by[node.input[1]].input[0]).dtype == np.int8
    assert max(np.abs(graph.value(graph.made_by[node.input[1]].input[0])).max() for node in graph.of("Conv")) > 64


def test_nearly_symmetric_activations_of_convolutions_have_no_zero_point_and_stay_in_integer_kernels(static, tmp_path):
    made = static("residual", VNNI).model
    graph = Graph(made)
    ranges = {node.input[0]: graph.range(node) for node in graph.of("QuantizeLinear")}
    signed = {name: (low, high) for name, (low, high) in ranges.items() if low < 0 < high}
    even = [name for name, (low, high) in signed.items() if low == pytest.approx(-high, rel=0.02)]
    assert even
    for node in graph.of("QuantizeLinear"):
        if node.input[0] in even:
            assert graph.value(node.input[2]).dtype == np.int8
            assert graph.value(node.input[2]) == 0
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(made.entry_path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert kinds.count("QLinearConv") == len(graph.of("Conv"))


def test_avx2_graphs_keep_weights_to_seven_bits(static):
    graph = Graph(static("conv_net", AVX2).model)
    weights = [graph.value(graph.made_by[node.input[1]].input[0]) for node in [*graph.of("Conv"), *graph.of("Gemm")]]
    assert weights
    assert all(weight.dtype == np.int8 and np.abs(weight.astype(int)).max() <= 64 for weight in weights)


@pytest.mark.parametrize("target", [VNNI, AVX2], ids=lambda target: target.name)
def test_x86_kernels_multiply_activations_without_zero_points(kept, static, target):
    made = static("transformer", target)
    graph = Graph(made.model)
    pairs = [[graph.made_by.get(name) for name in node.input] for node in graph.of("MatMul")]
    factors = [pair for pair in pairs if all(each is not None and graph.made_by.get(each.input[0]) for each in pair)]
    assert len(factors) >= 2, "queries and keys, attention and values"
    points = [graph.value(each.input[2]) for pair in factors for each in pair]
    assert {point.dtype.name for point in points} == {"int8", "uint8"}, "a softmax is never below zero"
    assert not any(point.any() for point in points)
    rows = rows_for("transformer", 16, seed=5)
    expected, got = (answers(model, rows) for model in (kept.ready("transformer"), made.model))
    assert all(relative(expected[name], got[name]) < 0.1 for name in expected)


@pytest.mark.parametrize("target", [VNNI, AVX2, A100], ids=lambda target: target.name)
def test_static_int8_answers_nearly_the_same(kept, static, target):
    outcome = static("conv_net", target)
    rows = rows_for("conv_net", 16, seed=5)
    expected, got = answers(kept.ready("conv_net"), rows), answers(outcome.model, rows)
    assert 0 < relative(expected["output"], got["output"]) < 0.15
    assert outcome.model.numerics == "int8"
    assert outcome.model.numerics_share == 1.0
    assert outcome.model.quantization.rules == target.rules
    assert outcome.model.quantization.method == "static"


@pytest.mark.parametrize("operators", ["weighted", "all"])
@pytest.mark.parametrize("name", ["conv_net", "transformer"])
def test_fp8_is_the_same_graph_in_e4m3_and_is_simulated(bench, kept, name, operators):
    """Its steps are smaller than those of int8 near zero, and larger at the ends."""
    rows = rows_for(name, 64)
    ready = kept.ready(name)
    done = run(bench, ready, L4, rows, numerics="fp8", method="static", operators=operators)
    graph = Graph(done.model)
    points = {graph.weights[node.input[2]].data_type for node in graph.pairs}
    assert points == {TensorProto.FLOAT8E4M3FN}
    assert graph.pairs
    assert done.model.numerics == "fp8"
    assert done.model.numerics_share > (0.99 if operators == "all" or name == "conv_net" else 0.5)
    found = done.report.tables["calibration_ranges"]
    assert found
    assert all(row["low"] == -row["high"] == -448 * row["step"] for row in found)
    backend = BACKENDS["onnxruntime"]
    assert "no fp8" in backend.refusal(done.model, L4, BackendOptions())
    chosen = Compile().options(done.model, L4, None)
    assert chosen.graph_optimizations == "off"
    assert backend.refusal(done.model, L4, chosen) is None
    fresh = rows_for(name, 16, seed=5)
    expected, got = answers(ready, fresh), answers(done.model, fresh, graph_optimizations="off")
    for output, values in expected.items():
        assert 0 < relative(values, got[output]) < 0.15


def test_fp8_has_what_calibration_has_and_nothing_of_integers():
    fp8 = {"numerics": "fp8"}
    for fine in ({}, {"ranges": "r.json"}, {"calibration_method": "mse"}, {"smooth": 0.5}, {"equalize": True}):
        assert Quantize(**fp8, **fine).clash() is None
    assert "bias_correction is not for fp8" in Quantize(**fp8, bias_correction=True).clash()
    assert "method: dynamic is not for fp8" in Quantize(**fp8, method="dynamic").clash()
    assert "finds none" in Quantize(**fp8, ranges="r.json", calibration_method="mse").clash()
    assert Quantize(**fp8).refusal(L4) is None


def test_surviving_nodes_keep_their_module_paths(kept, static):
    before = {node.name for node in onnx.load(kept.ready("transformer").entry_path).graph.node}
    graph = Graph(static("transformer", A100).model)
    products = [*graph.of("MatMul"), *graph.of("Gemm")]
    assert products
    assert {node.name for node in products} <= before
    assert any(node.name.startswith("layers.1.attention.query/") for node in products)


def test_dynamic_int8_has_integer_products_and_an_embedding_of_bytes(bench, kept):
    outcome = run(bench, kept.ready("transformer"), VNNI, None, method="dynamic")
    graph = Graph(outcome.model)
    assert graph.of("MatMulInteger")
    gathered = {node.input[0] for node in graph.of("Gather") if node.input[0] in graph.weights}
    assert {graph.weights[name].data_type for name in gathered} <= {TensorProto.INT8, TensorProto.UINT8}
    assert gathered
    assert any(node.name.startswith("layers.1.attention.query/") for node in graph.of("MatMulInteger"))
    rows = rows_for("transformer", 8)
    expected, got = answers(kept.ready("transformer"), rows), answers(outcome.model, rows)
    assert relative(expected["output"], got["output"]) < 0.1
    # Of 12 tokens, 32 wide, in each of 2 layers: 4 projections, up and down; scores and mixing stay in float.
    weighted = 2 * (4 * 12 * 32 * 32 + 2 * 12 * 32 * 64) + 32 * 3
    between_activations = 2 * (2 * 12 * 12 * 32)
    assert outcome.model.numerics_share == round(weighted / (weighted + between_activations), 4)


@pytest.mark.parametrize(
    ("target", "kept_as"),
    [(VNNI, TensorProto.INT8), (AVX2, TensorProto.INT8), (ARM, TensorProto.INT8), (A100, TensorProto.FLOAT)],
)
def test_static_int8_looks_rows_up_as_bytes_where_the_target_can(static, target, kept_as):
    graph = Graph(static("transformer", target).model)
    gathered = [node for node in graph.of("Gather") if len(getattr(graph.weights.get(node.input[0]), "dims", ())) == 2]
    assert gathered
    assert {graph.weights[node.input[0]].data_type for node in gathered} == {kept_as}


def test_dynamic_int8_of_a_layer_that_is_used_twice(bench, kept):
    outcome = run(bench, kept.ready("siamese"), VNNI, None, method="dynamic")
    assert len(Graph(outcome.model).of("MatMulInteger")) == 3
    rows = rows_for("siamese", 8)
    expected, got = answers(kept.ready("siamese"), rows), answers(outcome.model, rows)
    assert relative(expected["output"], got["output"]) < 0.1


def test_dynamic_int8_of_a_recurrent_net(bench, kept):
    outcome = run(bench, kept.ready("tagger"), VNNI, None, method="dynamic")
    assert Graph(outcome.model).of("DynamicQuantizeLSTM")
    recurrent, head = 5 * 4 * (16 * 6 + 16 * 16), 16 * 3
    assert outcome.model.numerics_share >= round(recurrent / (recurrent + head), 4)
    rows = rows_for("tagger", 8)
    expected, got = answers(kept.ready("tagger"), rows), answers(outcome.model, rows)
    assert relative(expected["output"], got["output"]) < 0.1


def test_fp16_keeps_the_types_of_inputs_and_outputs(bench, kept):
    outcome = run(bench, kept.ready("conv_net"), VNNI, None, numerics="fp16", method="cast")
    graph = Graph(outcome.model)
    kinds = {each.data_type for each in graph.weights.values() if np.prod(each.dims) > 8}
    assert kinds == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in graph.graph.input] == [TensorProto.FLOAT]
    assert [value.type.tensor_type.elem_type for value in graph.graph.output] == [TensorProto.FLOAT]
    assert outcome.model.numerics_share == 1.0
    rows = rows_for("conv_net", 8)
    expected, got = answers(kept.ready("conv_net"), rows), answers(outcome.model, rows)
    assert 0 < relative(expected["output"], got["output"]) < 5e-3


def test_a_weight_beyond_fp16_is_refused(bench, kept):
    with pytest.raises(StageFailed, match=r"7e\+04 is beyond fp16") as caught:
        run(bench, kept.ready("wide"), VNNI, None, numerics="fp16", method="cast")
    assert caught.value.exit_code == 4
    assert "--bf16" in caught.value.hint


def test_bf16_weights_run_in_openvino_alone(bench, kept):
    outcome = run(bench, kept.ready("conv_net"), VNNI, None, numerics="bf16", method="cast")
    model = outcome.model
    assert TensorProto.BFLOAT16 in {each.data_type for each in Graph(model).weights.values()}
    assert model.size_bytes < kept.ready("conv_net").size_bytes
    told = BackendOptions(threads=1, precision="bfloat16")
    assert BACKENDS["onnxruntime"].refusal(model, VNNI, told)
    if BACKENDS["openvino"].refusal(model, VNNI, told):
        pytest.skip("this CPU executes no bf16")
    rows = rows_for("conv_net", 8)
    expected = answers(kept.ready("conv_net"), rows)["output"]
    assert relative(expected, answers(model, rows, "openvino", precision="bfloat16")["output"]) < 2e-2


@pytest.mark.parametrize("numerics", ["int8", "fp16", "bf16"])
def test_nothing_to_quantize_is_an_error(bench, kept, numerics):
    model = kept.exported("elementwise")
    rows = rows_for("elementwise", 8)
    for stage in Quantize(numerics=numerics).propose(model, VNNI):
        with pytest.raises(MlpackError) as caught:
            run(bench, model, VNNI, rows, **stage.model_dump())
        assert caught.value.exit_code in {2, 4}


def test_static_int8_without_rows_is_refused(bench, kept):
    with pytest.raises(UsageError) as caught:
        run(bench, kept.ready("mlp"), VNNI, None, method="static")
    assert "--calibration random:64" in caught.value.hint


class Watched:
    """Rows that count how many of them were given out."""

    def __init__(self, rows):
        self.rows = rows
        self.given = 0
        self.fingerprint = sha256(rows["x"].tobytes()).hexdigest()

    def __len__(self):
        return len(self.rows["x"])

    def batches(self, size):
        for start in range(0, len(self), size):
            at = np.arange(start, min(start + size, len(self)))
            self.given = max(self.given, int(at[-1]) + 1)
            yield Batch({name: array[at] for name, array in self.rows.items()}, None, at)


def input_scale(model):
    graph = Graph(model)
    (first,) = [node for node in graph.of("QuantizeLinear") if node.input[0] == "x"]
    return float(graph.value(first.input[1]))


@pytest.mark.parametrize("samples", [5, 20, 32])
def test_calibration_looks_at_its_own_rows_and_stops_at_samples(bench, kept, samples):
    x = np.random.default_rng(0).uniform(-1, 1, (64, 8)).astype(np.float32)
    x[0, 0] = 1.0
    x[samples:] *= 1000  # not to be seen
    calibration, other = Watched({"x": x}), Watched({"x": x * 1000})
    job = bench.job(
        parts={"calibration": calibration, "choosing": other, "confirming": other}, target=load_target("a100")
    )
    stage = Quantize(numerics="int8", method="static", operators="weighted", samples=samples, batch=8)
    model = stage.run(kept.ready("mlp"), job).model
    assert input_scale(model) == pytest.approx(1 / 127, rel=0.02)
    assert calibration.given <= -(-samples // 8) * 8
    assert other.given == 0


@pytest.mark.parametrize("method", ["moving_average", "percentile", "mse"])
def test_other_calibration_methods(bench, kept, method):
    outcome = run(
        bench, kept.ready("mlp"), VNNI, rows_for("mlp", 64), method="static", operators="all",
        calibration_method=method,
    )  # fmt: skip
    rows = rows_for("mlp", 16, seed=3)
    assert relative(answers(kept.ready("mlp"), rows)["output"], answers(outcome.model, rows)["output"]) < 0.3


def test_what_a_mask_touches_stays_in_float(bench, tmp_path):
    weights = {
        "one": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32),
        "mask": np.array([np.finfo(np.float32).min, 0, 0, 0], np.float32),
        "two": np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "one"], ["scores"], name="first"),
        helper.make_node("Add", ["scores", "mask"], ["masked"], name="masking"),
        helper.make_node("Softmax", ["masked"], ["shares"], name="softmax"),
        helper.make_node("MatMul", ["shares", "two"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "masked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "model.onnx"
    )
    specs = [TensorSpec(name=name, dtype="float32", dims=("batch", 2, size)) for name, size in (("x", 8), ("y", 3))]
    model = Model(path=tmp_path, entry="model.onnx", format="onnx", inputs=(specs[0],), outputs=(specs[1],))
    rows = {"x": np.random.default_rng(2).standard_normal((64, 2, 8)).astype(np.float32)}
    done = run(bench, model, VNNI, rows, method="static", operators="all").model
    made = Graph(done)
    (masking,) = made.of("Add")
    assert "mask" in masking.input, "no pair stands before the mask"
    assert {node.op_type for node in made.graph.node if masking.output[0] in node.input} == {"Softmax"}
    scores = rows["x"] @ weights["one"]
    scores[..., 0] = -np.inf
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    expected = shares / shares.sum(-1, keepdims=True) @ weights["two"]
    assert relative(expected, answers(done, rows)["y"]) < 0.1


@pytest.mark.parametrize("target", [VNNI, AVX2, A100], ids=lambda target: target.name)
@pytest.mark.parametrize(
    "options",
    [
        {"operators": "all"},
        {"operators": "weighted", "calibration_method": "entropy"},
        {"operators": "weighted", "calibration_method": "mse", "equalize": True, "bias_correction": True},
        {"operators": "weighted", "rounding": "adaptive"},
    ],
    ids=["all", "entropy", "equalized", "rounded"],
)
def test_channels_and_activations_of_zeros_divide_nothing_by_zero(bench, kept, target, options):
    model = kept.ready("dead_channels")
    weights = [numpy_helper.to_array(each) for each in onnx.load(model.entry_path).graph.initializer]
    dead = [each for each in weights if each.ndim > 1 and not each.reshape(len(each), -1).any(1).all()]
    assert dead, "a channel of zeros is there after batch norm was folded in"
    made = run(bench, model, target, rows_for("dead_channels", 64), method="static", **options).model
    scales = [numpy_helper.to_array(each) for each in onnx.load(made.entry_path).graph.initializer]
    assert all(np.isfinite(each).all() for each in scales if each.dtype.kind == "f")
    rows = rows_for("dead_channels", 16, seed=3)
    expected, got = (answers(each, rows)["output"] for each in (model, made))
    assert np.isfinite(got).all()
    assert relative(expected, got) < 0.1


def test_dynamic_int8_of_channels_of_zeros(bench, kept):
    made = run(bench, kept.ready("dead_channels"), VNNI, None, method="dynamic").model
    rows = rows_for("dead_channels", 16, seed=3)
    expected, got = (answers(each, rows)["output"] for each in (kept.ready("dead_channels"), made))
    assert relative(expected, got) < 0.1


def test_smoothing_happens_before_ranges_are_found(bench, kept):
    outcome = run(
        bench, kept.ready("transformer"), VNNI, rows_for("transformer", 32), method="static", operators="weighted",
        smooth=0.5,
    )  # fmt: skip
    graph = Graph(outcome.model)
    divided = [node for node in graph.of("Mul") if node.name.endswith("_smooth")]
    assert divided
    found = {row["tensor"] for row in outcome.report.tables["found_ranges"]}
    assert any(name.endswith("_smoothed") for name in found)
    rows = rows_for("transformer", 16, seed=3)
    expected, got = answers(kept.ready("transformer"), rows), answers(outcome.model, rows)
    assert relative(*(next(iter(each.values())) for each in (expected, got))) < 0.3


@pytest.mark.parametrize("target", [VNNI, A100], ids=lambda target: target.name)
def test_equalizing_happens_before_ranges_are_found(bench, kept, target):
    outcome = run(
        bench, kept.ready("mlp"), target, rows_for("mlp", 64), method="static", operators="weighted", equalize=True,
        bias_correction=True,
    )  # fmt: skip
    assert any(row["tensor"].endswith("_equalized") for row in outcome.report.tables["found_ranges"])
    rows = rows_for("mlp", 16, seed=3)
    assert 0 < relative(answers(kept.ready("mlp"), rows)["output"], answers(outcome.model, rows)["output"]) < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"method": "static", "operators": "all"},
        {"method": "static", "operators": "weighted", "equalize": True, "bias_correction": True},
        {"method": "dynamic"},
        {"numerics": "fp16", "method": "cast"},
        {"numerics": "bf16", "method": "cast"},
    ],
    ids=["static", "corrected", "dynamic", "fp16", "bf16"],
)
def test_two_runs_give_the_same_bytes(bench, kept, options):
    one, two = (run(bench, kept.ready("mlp"), VNNI, rows_for("mlp", 32), **options).model for _ in range(2))
    assert one.entry_path.read_bytes() == two.entry_path.read_bytes()
    assert list(one.digests().values()) == list(two.digests().values())


def flavours(model, target, **options):
    stages = Quantize(**{"numerics": "int8", **options}).propose(model, target)
    return [(stage.numerics, stage.method, stage.operators) for stage in stages]


def test_proposals_fit_graph_and_target(kept):
    static_ones = [("int8", "static", "all"), ("int8", "static", "weighted")]
    dynamic = [("int8", "dynamic", "weighted")]
    assert flavours(kept.ready("conv_net"), VNNI) == dynamic + static_ones, "its head is a Gemm"
    assert flavours(kept.ready("transformer"), VNNI) == dynamic + static_ones
    assert flavours(kept.ready("transformer"), A100) == static_ones
    assert flavours(kept.ready("transformer"), VNNI, method="static", operators="weighted") == static_ones[1:]
    assert flavours(kept.ready("tagger"), VNNI)[0] == dynamic[0]
    assert flavours(kept.exported("elementwise"), VNNI) == [("int8", "auto", "auto")]
    assert {one[0] for one in flavours(kept.ready("mlp"), VNNI, numerics="auto")} == {"bf16", "int8"}
    assert {one[0] for one in flavours(kept.ready("mlp"), AVX2, numerics="auto")} == {"int8"}
    assert {one[0] for one in flavours(kept.ready("mlp"), A100, numerics="auto")} == {"fp16", "int8"}
    assert flavours(kept.ready("mlp"), A100, numerics="auto", method="cast") == [("fp16", "cast", "auto")]


def test_refusals_before_anything_runs():
    assert "has no fp8" in Quantize(numerics="fp8").refusal(A100)
    assert "rules of NVIDIA" in Quantize(numerics="fp8").refusal(VNNI.model_copy(update={"numerics": ("fp32", "fp8")}))
    assert Quantize(numerics="fp8").refusal(L4) is None
    assert "dynamic int8" in Quantize(numerics="int8", method="dynamic").refusal(A100)
    assert "dynamic int8" in Quantize(numerics="int8", method="dynamic").refusal(load_target("t4"))
    assert "has no bf16" in Quantize(numerics="bf16").refusal(AVX2)
    assert "no int8" in Quantize(numerics="int8").refusal(load_target("v100"))
    assert Quantize(numerics="int8", ranges="r.json").refusal(VNNI) is None
    for fine in (Quantize(numerics="int8"), Quantize(numerics="fp16"), Quantize(numerics="auto")):
        assert fine.refusal(A100) is None
        assert fine.refusal(VNNI) is None


@pytest.mark.parametrize("target", [VNNI, A100])
def test_the_ranges_that_calibration_found_are_reported(static, target):
    rows = static("mlp", target).report.tables["calibration_ranges"]
    data = rows_for("mlp", 64)["x"]
    by_tensor = {row["tensor"]: row for row in rows}
    assert "x" in by_tensor
    assert by_tensor["x"]["low"] <= data.min() + by_tensor["x"]["step"]
    assert by_tensor["x"]["high"] >= data.max() - by_tensor["x"]["step"]
    assert by_tensor["x"]["high"] <= 1.5 * np.abs(data).max()
    assert all(row["high"] - row["low"] == pytest.approx(255 * row["step"]) for row in rows)


def test_dynamic_ranges_are_not_calibrated(bench, kept):
    done = run(bench, kept.ready("mlp"), VNNI, rows_for("mlp", 16), method="dynamic", operators="weighted")
    assert done.report.tables["calibration_ranges"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"numerics": "fp16", "ranges": "r.json"}, "ranges is for static int8 alone, and this is fp16"),
        ({"method": "dynamic", "smooth": 0.5}, "smooth is for static int8 alone, and this is dynamic"),
        ({"method": "dynamic", "equalize": True, "bias_correction": True}, "equalize and bias_correction are for"),
        ({"numerics": "bf16", "rounding": "adaptive"}, "rounding is for static int8"),
        ({"numerics": "fp16", "exclude": ("head",)}, "exclude is for int8, int4 and fp8, and this is fp16"),
        ({"numerics": "auto", "method": "cast", "exclude": ("head",)}, "exclude is for int8, int4 and fp8"),
        ({"numerics": "auto", "exclude": ("head",)}, None),
        ({"ranges": "r.json", "calibration_method": "mse"}, "with ranges given, calibration_method finds none"),
        ({"percentile": 99.0}, "percentile is for calibration_method: percentile, and this is minmax"),
        ({"smooth": 0.5, "calibration_method": "percentile", "percentile": 99.0}, None),
        ({"numerics": "auto", "bias_correction": True}, None),
        ({"method": "dynamic"}, None),
    ],
    ids=str,
)
def test_options_that_would_be_ignored_are_refused(options, said):
    clash = Quantize(**{"numerics": "int8", **options}).clash()
    assert clash is None if said is None else said in clash


def test_flavours_without_calibration_have_none_of_its_options(kept):
    asked = Quantize(numerics="int8", bias_correction=True, calibration_method="mse", smooth=0.5)
    proposed = {each.method: each for each in asked.propose(kept.ready("transformer"), VNNI)}
    assert proposed["dynamic"] == Quantize(numerics="int8", method="dynamic", operators="weighted")
    assert proposed["static"].bias_correction
    assert proposed["static"].calibration_method == "mse"


def test_a_cast_proposed_beside_int8_says_nothing_of_what_int8_leaves_out(kept):
    made = Quantize(numerics="auto", exclude=("head",)).propose(kept.ready("mlp"), A100)
    assert {each.numerics: each.exclude for each in made} == {"fp16": (), "int8": ("head",)}
