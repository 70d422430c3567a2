"""Weights in blocks of four bits: which of a graph's, by which method, and that the graph still answers."""

import importlib.util

import numpy as np
import onnx
import pytest
from doors import A100, AVX2, VNNI, answers, relative, rows_for
from onnx import TensorProto, helper, numpy_helper

from mlpack.backends.tensorrt_plan import build_of
from mlpack.core.model import Model, TensorSpec
from mlpack.errors import StageFailed, UsageError
from mlpack.quantization.coverage import compute_nodes
from mlpack.quantization.layer_errors import layer_errors
from mlpack.stages.build_engine import BuildEngine
from mlpack.stages.compile import Compile
from mlpack.stages.measure_sensitivity import MeasureSensitivity
from mlpack.stages.quantize import Quantize
from mlpack.stages.quantize_flavours import in_blocks

METHODS = ("rtn", "hqq", "gptq")


def run(bench, model, rows=None, target=VNNI, **options):
    parts = {} if rows is None else {"calibration": bench.data(**rows)}
    told = {"numerics": "int4", "method": "hqq", **options}
    stage = in_blocks(Quantize(**told), target)
    return stage.run(model, bench.job(parts=parts, target=target))


def nodes_of(model, operator):
    return [node for node in onnx.load(model.entry_path).graph.node if node.op_type == operator]


def told(outcome):
    """What became of each weight, by the node that reads it."""
    return {row["layer"]: row for row in outcome.report.tables["weights"]}


def written(folder, nodes, weights, inputs, outputs, *, external=False, kind=TensorProto.FLOAT):
    """A graph of these nodes as a Model."""
    graph = helper.make_graph(
        nodes,
        "written",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    beside = {"save_as_external_data": external, "size_threshold": 0, "location": "model.onnx.data"}
    onnx.save(proto, folder / "model.onnx", **beside)
    kinds = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT64: "int64"}
    return Model(
        path=folder,
        entry="model.onnx",
        format="onnx",
        inputs=tuple(TensorSpec(name=key, dtype=kinds[each[0]], dims=tuple(each[1])) for key, each in inputs.items()),
        outputs=tuple(TensorSpec(name=key, dtype=kinds[kind], dims=tuple(dims)) for key, dims in outputs.items()),
    )


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def product(bench, weight, name="product", **options):
    """One product, quantized."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name=name)
    size, count = weight.shape
    inputs, outputs = {"x": (TensorProto.FLOAT, ["batch", size])}, {"y": ["batch", count]}
    model = written(bench.job().out, [node], {"w": weight}, inputs, outputs)
    return model, run(bench, model, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_transformer_keeps_its_weights_in_blocks_and_answers_nearly_the_same(bench, kept, method, symmetric):
    before = kept.ready("transformer")
    done = run(bench, before, rows_for("transformer", 64), method=method, symmetric=symmetric, block=16)
    products = nodes_of(done.model, "MatMulNBits")
    assert len(products) == 13, "four projections, up and down, in each of two layers, and the head"
    assert {node.name for node in products} <= {node.name for node in onnx.load(before.entry_path).graph.node}
    (table,) = nodes_of(done.model, "GatherBlockQuantized")
    assert table.name.startswith("embedding/")
    assert all(len(node.input) == (3 if symmetric else 4) for node in products)
    assert (done.model.numerics, done.model.quantization.method) == ("int4", method)
    # Of 12 tokens, 32 wide, in each of 2 layers; scores and mixing are products of activations.
    weighted = 2 * (4 * 12 * 32 * 32 + 2 * 12 * 32 * 64) + 32 * 3
    assert done.model.numerics_share == round(weighted / (weighted + 2 * (2 * 12 * 12 * 32)), 4)
    rows = rows_for("transformer", 16, seed=3)
    off = {name: relative(true, answers(done.model, rows)[name]) for name, true in answers(before, rows).items()}
    assert all(0 < each < 0.25 for each in off.values()), off
    assert done.model.size_bytes < before.size_bytes


def test_each_weights_fate_is_told_with_its_bytes(bench, kept):
    done = run(bench, kept.ready("transformer"), exclude=("head",), wide=("layers.0.up",), embeddings=False)
    rows = told(done)
    (head,) = [row for name, row in rows.items() if name.startswith("head/")]
    assert (head["numerics"], head["why"], head["bytes"]) == ("float", "excluded", head["bytes_before"])
    (up,) = [row for name, row in rows.items() if name.startswith("layers.0.up/")]
    (other,) = [row for name, row in rows.items() if name.startswith("layers.1.up/")]
    assert (up["numerics"], other["numerics"]) == ("int8", "int4")
    # 32 × 64: one byte each with a float and a byte of zero point a row of blocks, or half a byte.
    assert (up["bytes"], other["bytes"]) == (32 * 64 + 64 * (4 + 1), 32 * 64 // 2 + 64 * (4 + 1))
    (table,) = [row for row in rows.values() if row["operator"] == "Gather" and row["bytes_before"] == 50 * 32 * 4]
    assert table["why"] == "embeddings: false"
    kinds = {each.name: each.numerics for each in compute_nodes(done.model.entry_path, rows_for("transformer", 2))}
    assert kinds[up["layer"]] == "int8"
    assert kinds[other["layer"]] == "int4"
    assert kinds[head["layer"]] == "fp32"


@pytest.mark.parametrize("gemm", [
    {}, {"transB": 1}, {"alpha": 0.5}, {"transB": 1, "alpha": 2.0, "beta": 0.25}, {"beta": 3.0},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("bias", ["constant", "scalar", "computed", "none"])
@pytest.mark.parametrize("target", [VNNI, A100], ids=lambda each: each.name)
def test_a_gemm_is_a_product_and_a_sum(bench, gemm, bias, target):
    weight = random(128, 24)
    weights = {"w": weight.T.copy() if gemm.get("transB") else weight}
    weights |= {"constant": {"b": random(24, seed=1)}, "scalar": {"b": random(1, seed=1)}}.get(bias, {})
    added = {"none": [], "computed": ["c"]}.get(bias, ["b"])
    nodes = [
        helper.make_node("Relu", ["z"], ["c"], name="computing"),
        helper.make_node("Gemm", ["x", "w", *added], ["y"], name="gemm", **gemm),
        helper.make_node("Add", ["y", "c"], ["sum"], name="adding"),
    ]
    inputs = {"x": (TensorProto.FLOAT, ["batch", 128]), "z": (TensorProto.FLOAT, ["batch", 24])}
    model = written(bench.job().out, nodes, weights, inputs, {"sum": ["batch", 24]})
    if bias == "computed" and "beta" in gemm:
        with pytest.raises(StageFailed, match="no constant matrix of this graph"):
            run(bench, model, target=target, activations="float")
        return
    done = run(bench, model, target=target).model
    rows = {"x": random(6, 128, seed=2), "z": random(6, 24, seed=3)}
    literal = {"graph_optimizations": "off"} if target is A100 else {}
    assert relative(answers(model, rows)["sum"], answers(done, rows, **literal)["sum"]) < 0.15
    assert done.numerics_share == 1.0


def test_a_weight_that_two_products_read_is_kept_once_and_that_of_an_embedding_beside_it(bench):
    """A tied head reads the embedding's table turned over."""
    table = random(64, 32)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["looked"], name="embedding/gather"),
        helper.make_node("MatMul", ["looked", "w"], ["one"], name="one/MatMul"),
        helper.make_node("MatMul", ["one", "w"], ["two"], name="two/MatMul"),
        helper.make_node("Transpose", ["table"], ["turned"], name="head/Transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["two", "turned"], ["y"], name="head/MatMul"),
    ]
    weights = {"table": table, "w": random(32, 32, seed=1) / 6}
    model = written(
        bench.job().out, nodes, weights, {"tokens": (TensorProto.INT64, ["batch", 5])}, {"y": ["batch", 5, 64]}
    )
    done = run(bench, model)
    rows = told(done)
    assert rows["two/MatMul"]["bytes"] == 0 < rows["one/MatMul"]["bytes"]
    graph = onnx.load(done.model.entry_path).graph
    assert not nodes_of(done.model, "Transpose")
    assert {node.input[1] for node in graph.node if node.name in {"one/MatMul", "two/MatMul"}} == {
        each.name for each in graph.initializer if each.name.startswith("w/") and each.data_type == TensorProto.UINT8
        and each.dims[-1] == 16
    }  # fmt: skip
    assert not {"table", "w"} & {each.name for each in graph.initializer}
    tokens = {"tokens": np.random.default_rng(2).integers(0, 64, (4, 5))}
    assert relative(answers(model, tokens)["y"], answers(done.model, tokens)["y"]) < 0.2


def test_what_something_else_reads_in_float_stays_there(bench):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["one"], name="one"),
        helper.make_node("ReduceSum", ["w"], ["total"], name="total"),
        helper.make_node("Add", ["one", "total"], ["y"], name="adding"),
    ]
    inputs, outputs = {"x": (TensorProto.FLOAT, ["batch", 32])}, {"y": ["batch", 8]}
    model = written(bench.job().out, nodes, {"w": random(32, 8)}, inputs, outputs)
    done = run(bench, model).model
    assert "w" in {each.name for each in onnx.load(done.entry_path).graph.initializer}
    rows = {"x": random(4, 32, seed=4)}
    assert relative(answers(model, rows)["y"], answers(done, rows)["y"]) < 0.2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [33, 100, 7])
def test_inputs_that_are_no_whole_blocks(bench, method, size):
    model, done = product(bench, random(size, 16), method=method, rows={"x": random(64, size, seed=5)})
    rows = {"x": random(8, size, seed=1)}
    assert relative(answers(model, rows)["y"], answers(done.model, rows)["y"]) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_columns_of_zeros_and_of_one_value_divide_nothing_by_zero(bench, method):
    weight = random(64, 8)
    weight[:, 2], weight[:, 5], weight[:32, 6] = 0, 0.5, 0
    model, done = product(bench, weight, method=method, activations="float", rows={"x": random(64, 64, seed=5)})
    rows = {"x": random(8, 64, seed=1)}
    true, got = answers(model, rows)["y"], answers(done.model, rows)["y"]
    assert np.isfinite(got).all()
    assert not got[:, 2].any()
    assert relative(true, got) < 0.2


def test_gptq_answers_nearer_than_rounding_to_the_nearest(bench):
    mixed = random(16, 64, seed=3)
    rows, fresh = ({"x": random(512, 16, seed=at) @ mixed + 0.1 * random(512, 64, seed=at + 1)} for at in (5, 15))
    off = {}
    for method in METHODS:
        model, done = product(bench, random(64, 32), method=method, rows=rows, activations="float")
        off[method] = relative(answers(model, fresh)["y"], answers(done.model, fresh)["y"])
    assert off["gptq"] < 0.8 * off["hqq"] <= 0.8 * 1.05 * off["rtn"]


def test_gptq_without_rows_is_refused_and_the_others_need_none(bench, kept):
    with pytest.raises(UsageError, match="gptq needs calibration data"):
        run(bench, kept.ready("mlp"), method="gptq")
    for method in ("rtn", "hqq"):
        assert run(bench, kept.ready("mlp"), method=method).model.numerics_share == 1.0


def test_weights_in_other_files_stay_in_other_files(bench):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    inputs, outputs = {"x": (TensorProto.FLOAT, ["batch", 64])}, {"y": ["batch", 64]}
    model = written(bench.job().out, [node], {"w": random(64, 64)}, inputs, outputs, external=True)
    done = run(bench, model).model
    assert {path.name for path in done.files()} == {"model.onnx", "model.onnx.data"}
    rows = {"x": random(4, 64, seed=1)}
    assert relative(answers(model, rows)["y"], answers(done, rows)["y"]) < 0.2
    assert done.size_bytes < model.size_bytes / 3


@pytest.mark.parametrize("method", METHODS)
def test_a_graph_in_half_precision_stays_one(bench, method):
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["looked"], name="looking"),
        helper.make_node("MatMul", ["looked", "w"], ["y"], name="product"),
    ]
    weights = {"table": random(40, 32).astype(np.float16), "w": random(32, 8, seed=1).astype(np.float16)}
    inputs = {"tokens": (TensorProto.INT64, ["batch", 3])}
    model = written(bench.job().out, nodes, weights, inputs, {"y": ["batch", 3, 8]}, kind=TensorProto.FLOAT16)
    rows = {"tokens": np.random.default_rng(2).integers(0, 40, (16, 3))}
    done = run(bench, model, rows, method=method).model
    kinds = {each.data_type for each in onnx.load(done.entry_path).graph.initializer}
    assert kinds == {TensorProto.UINT8, TensorProto.FLOAT16}
    true, got = answers(model, rows)["y"], answers(done, rows)["y"]
    assert got.dtype == np.float16
    assert relative(true.astype(np.float32), got.astype(np.float32)) < 0.25


def test_what_is_no_part_of_the_size_stays_in_float(bench, kept):
    rows = told(run(bench, kept.ready("transformer"), least_share=0.05))
    whole = 4 * (50 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 64))
    small = [row for row in rows.values() if row["bytes_before"] < 0.05 * whole]
    assert small
    assert all(row["numerics"] == "float" and "less than 5.00% of the weights" in row["why"] for row in small)
    assert any(row["numerics"] == "int4" for row in rows.values())


@pytest.mark.parametrize("weight", [random(9, 8, 8), np.full((8, 8), np.inf, np.float32)], ids=["stack", "infinite"])
def test_a_graph_without_such_a_matrix_is_refused(bench, weight):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    inputs, outputs = {"x": (TensorProto.FLOAT, [9, "batch", 8])}, {"y": weight.shape[:-1]}
    model = written(bench.job().out, [node], {"w": weight}, inputs, outputs)
    with pytest.raises(StageFailed, match="no constant matrix") as refused:
        run(bench, model)
    assert "no numbers" in refused.value.message or weight.ndim > 2


@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("activations", ["float", "int8"])
def test_the_kernels_activations_are_written_into_the_graph(bench, block, activations):
    model, done = product(bench, random(128, 32), block=block, activations=activations)
    (node,) = nodes_of(done.model, "MatMulNBits")
    attributes = {each.name: each.i for each in node.attribute}
    assert attributes["block_size"] == block
    assert attributes.get("accuracy_level", 0) == (4 if activations == "int8" else 0)
    rows = {"x": random(4, 128, seed=1)}
    assert relative(answers(model, rows)["y"], answers(done.model, rows)["y"]) < 0.2


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize(("size", "wide"), [(64, "one"), (100, "looking"), (130, "two")])
def test_both_runtimes_read_the_blocks_alike(bench, size, wide, block, symmetric):
    """What OpenVINO makes of zero points in halves of bytes, of a last block that is not full, and of a table."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"], name="looking"),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="one"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="two"),
    ]
    weights = {"table": random(50, 48), "w": random(48, size, seed=1), "v": random(size, 8, seed=2)}
    inputs = {"tokens": (TensorProto.INT64, ["batch", 3])}
    before = written(bench.job().out, nodes, weights, inputs, {"y": ["batch", 3, 8]})
    done = run(bench, before, block=block, symmetric=symmetric, wide=(wide,)).model
    assert done.only is None
    rows = {"tokens": np.random.default_rng(3).integers(0, 50, (9, 3))}
    one, two = (answers(done, rows, backend)["y"] for backend in ("onnxruntime", "openvino"))
    assert relative(one, two) < 0.03
    assert relative(answers(before, rows)["y"], two) < 0.25
    floats = run(bench, before, block=block, symmetric=symmetric, activations="float").model
    assert floats.only == "onnxruntime", "OpenVINO makes int8 of what it multiplies blocks with"


def test_graphs_for_nvidia_targets_have_int4_weights_behind_dequantize_linear(bench, kept):
    before, rows = kept.ready("transformer"), rows_for("transformer", 32)
    done = run(bench, before, rows, target=A100, method="gptq", block=32)
    proto = onnx.load(done.model.entry_path)
    weights = {each.name: each for each in proto.graph.initializer}
    pairs = [node for node in proto.graph.node if node.op_type == "DequantizeLinear"]
    assert len(pairs) == 13
    assert proto.opset_import[0].version >= 21
    for node in pairs:
        assert weights[node.input[0]].data_type == TensorProto.INT4
        assert (numpy_helper.to_array(weights[node.input[1]]) > 0).all()
        assert len(node.input) == 2, "TensorRT has no zero points"
    assert nodes_of(done.model, "Gather"), "a table stays in float"
    assert not nodes_of(done.model, "MatMulNBits")
    assert done.model.numerics_share > 0.8
    chosen = Compile().options(done.model, A100, None)
    assert chosen.graph_optimizations == "off", "it is simulated"
    fresh = rows_for("transformer", 16, seed=3)
    got = answers(done.model, fresh, graph_optimizations="off")
    assert all(0 < relative(true, got[name]) < 0.25 for name, true in answers(before, fresh).items())


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX has no wheel for this platform"
)
def test_an_engine_is_built_of_int4_weights(bench):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="one/MatMul"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "v", "b"], ["y"], name="two/Gemm", transB=1),
    ]
    weights = {"w": random(256, 256) / 16, "v": random(64, 256, seed=1) / 16, "b": random(64, seed=2)}
    inputs, outputs = {"x": (TensorProto.FLOAT, ["batch", 256])}, {"y": ["batch", 64]}
    before = written(bench.job().out, nodes, weights, inputs, outputs)
    after = run(bench, before, target=A100).model
    stage = BuildEngine(library="tensorrt_rtx")
    one, two = (build_of(stage.run(each, bench.job(target=A100)).model) for each in (before, after))
    assert two.tensors.get("INT4"), two.tensors
    assert two.plan_bytes < one.plan_bytes


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_what_each_layer_costs_is_measured_and_wide_ones_cost_next_to_nothing(bench, kept, name):
    before, rows = kept.ready(name), rows_for(name, 32)

    def noise(after):
        job = bench.job(parts={"calibration": bench.data(**rows)}, rivals={"before": before})
        return MeasureSensitivity().run(after, job).report

    whole = noise(run(bench, before).model)
    layers = whole.tables["layers"]
    assert all(0 < each["noise"] < 1 for each in layers)
    worst = max(layers, key=lambda each: each["noise"])
    milder = noise(run(bench, before, wide=tuple(worst["nodes"])).model)
    (again,) = [each for each in milder.tables["layers"] if each["layer"] == worst["layer"]]
    assert again["noise"] < worst["noise"] / 50, "sixteen times the steps"
    assert milder.metrics["noise"] < whole.metrics["noise"]


def test_explain_looks_at_the_same_layers(bench, kept):
    before, rows = kept.ready("transformer"), rows_for("transformer", 8)
    after = run(bench, before).model
    inputs = bench.job().out / "rows.npz"
    np.savez(inputs, **rows)
    found = layer_errors(bench.job().say, str(before.entry_path), str(after.entry_path), str(inputs), 4, 1)
    names = {node.name for kind in ("MatMulNBits", "GatherBlockQuantized") for node in nodes_of(after, kind)}
    assert names <= {each["layer"] for each in found["layers"]}


def test_what_is_tried_depends_on_the_method_that_is_asked_for(kept):
    model = kept.ready("mlp")
    proposed = Quantize(numerics="int4", damping=0.1).propose(model, VNNI)
    assert [(each.method, each.block, each.damping) for each in proposed] == [("gptq", 32, 0.1), ("gptq", 128, 0.1)]
    (one,) = Quantize(numerics="int4", method="hqq").propose(model, VNNI)
    assert (one.block, one.activations, one.symmetric) == (32, "int8", False)
    (card,) = Quantize(numerics="int4").propose(model, A100)
    assert (card.method, card.block) == ("gptq", 128)
    (only,) = Quantize(numerics="int4", method="gptq", block=64).propose(model, AVX2)
    assert (only.method, only.block) == ("gptq", 64)
    assert "int4" not in {each.numerics for each in Quantize(numerics="auto").propose(model, VNNI)}


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"method": "static"}, "method: static is not for int4"),
        ({"calibration_method": "mse"}, "calibration_method is for static int8 alone, and this is int4"),
        ({"bias_correction": True}, "bias_correction is for static int8 alone"),
        ({"operators": "all"}, "operators is for int8, and this is int4"),
        ({"per_channel": False}, "per_channel is for int8"),
        ({"method": "rtn", "damping": 0.1}, "damping is for method: gptq, and this is rtn"),
        ({"method": "hqq", "act_order": False}, "act_order is for method: gptq, and this is hqq"),
        ({"numerics": "int8", "method": "gptq"}, "method: gptq is for int4, and this is int8"),
        ({"numerics": "int8", "block": 64}, "block is for int4 alone, and this is int8"),
        ({"numerics": "auto", "embeddings": False}, "embeddings is for int4 alone, and this is auto"),
        ({"numerics": "fp16", "wide": ("head",)}, "wide is for int4 alone"),
        ({"method": "gptq", "damping": 0.1, "act_order": False, "block": 64, "symmetric": True}, None),
        ({"damping": 0.1}, None),
        ({"method": "rtn", "wide": ("head",), "exclude": ("body",), "least_share": 0, "embeddings": True}, None),
    ],
)
def test_options_that_would_be_ignored_are_refused(options, wrong):
    clash = Quantize(**{"numerics": "int4", **options}).clash()
    assert clash is None if wrong is None else wrong in clash


def test_only_gptq_needs_scipy():
    needed = {method: "scipy" in Quantize(numerics="int4", method=method).needs() for method in ("gptq", "hqq", "rtn")}
    assert needed == {"gptq": True, "hqq": False, "rtn": False}


def test_what_a_target_lacks_is_refused():
    for target in (VNNI, AVX2, A100):
        assert Quantize(numerics="int4").refusal(target) is None
    assert "TensorRT has no int4 tables" in Quantize(numerics="int4", embeddings=True).refusal(A100)
    assert "no int8 beside int4 weights" in Quantize(numerics="int4", activations="int8").refusal(A100)
    (made,) = Quantize(numerics="int4", method="hqq").propose(None, A100)
    assert (made.block, made.symmetric, made.activations, made.embeddings) == (128, True, "float", False)
