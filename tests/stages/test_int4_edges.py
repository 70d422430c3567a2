"""Weights in blocks at the edges: old opsets, nodes without names, blocks that gain nothing, options without effect."""

import numpy as np
import onnx
import pytest
from doors import A100, VNNI, answers, relative
from onnx import TensorProto, helper, numpy_helper

from mlpack.backends.onnxruntime_pieces import reads
from mlpack.core.model import Model, Quantization, TensorSpec
from mlpack.engine.candidates import Candidate
from mlpack.errors import StageFailed, UsageError
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize
from mlpack.stages.quantize_flavours import in_blocks


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def written(folder, nodes, weights, dims, opset=20, *, external=False):
    """A graph from `x` to `y`, as a Model."""
    graph = helper.make_graph(
        nodes,
        "written",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims[0])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=external, size_threshold=0, location="data")
    inputs, outputs = (
        (TensorSpec(name=name, dtype="float32", dims=tuple(each)),) for name, each in zip("xy", dims, strict=True)
    )
    return Model(path=folder, entry="model.onnx", format="onnx", inputs=inputs, outputs=outputs)


def blocks(bench, model, target=VNNI, **options):
    stage = in_blocks(Quantize(**{"numerics": "int4", "method": "rtn", **options}), target)
    return stage.run(model, bench.job(target=target))


def reduced(bench, **how):
    """A mean over an axis as opset 13 says it, then a product."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["y"], name="product"),
    ]
    dims = (["batch", 3, 128], ["batch", 32])
    return written(bench.job().out, nodes, {"w": random(128, 32)}, dims, opset=13, **how)


def test_a_graph_of_an_older_opset_is_converted_for_nvidia_targets(bench):
    model = reduced(bench)
    done = blocks(bench, model, A100).model
    proto = onnx.load(done.entry_path)
    onnx.checker.check_model(proto)
    assert proto.opset_import[0].version == 21
    rows = {"x": random(4, 3, 128, seed=1)}
    assert relative(answers(model, rows)["y"], answers(done, rows, graph_optimizations="off")["y"]) < 0.2


def test_an_older_opset_with_weights_in_files_is_refused_for_nvidia_targets(bench):
    with pytest.raises(StageFailed, match="opset 21 is needed"):
        blocks(bench, reduced(bench, external=True), A100)


@pytest.mark.parametrize("external", [False, True])
def test_nodes_without_names_get_some(bench, external):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"], name="MatMul_2"),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = {"w": random(64, 64), "v": random(64, 8, seed=1)}
    model = written(bench.job().out, nodes, weights, (["batch", 64], ["batch", 8]), external=external)
    named = Export().run(model, bench.job()).model
    names = [node.name for node in onnx.load(named.entry_path, load_external_data=False).graph.node]
    assert names == ["MatMul_0", "MatMul_2", "MatMul_2_"]
    rows = {"x": random(4, 64, seed=2)}
    np.testing.assert_array_equal(answers(named, rows)["y"], answers(model, rows)["y"])
    done = blocks(bench, named, wide=("MatMul_0",))
    assert [row["numerics"] for row in done.report.tables["weights"]] == ["int8", "int4"]
    assert 0 < done.model.numerics_share < 1


def test_a_file_whose_nodes_have_names_is_left_as_it_is(bench):
    model = reduced(bench)
    assert Export().run(model, bench.job()).model == model


def product(bench, size, count, name="product"):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name=name)
    return written(bench.job().out, [node], {"w": random(size, count)}, (["batch", size], ["batch", count]))


def test_blocks_that_would_be_larger_are_not_made(bench):
    with pytest.raises(StageFailed, match="blocks would take as many bytes"):
        blocks(bench, product(bench, 4, 64), block=32)


@pytest.mark.parametrize("size", [7, 32, 100])
@pytest.mark.parametrize("options", [{}, {"symmetric": True}, {"block": 16}], ids=str)
def test_what_blocks_take_is_known_before_they_are_made(bench, monkeypatch, size, options):
    from mlpack.stages.quantize_int4 import _Work

    foretold, plain = [], _Work._bytes
    monkeypatch.setattr(_Work, "_bytes", lambda work, weight: foretold.append(plain(work, weight)) or foretold[-1])
    (row,) = blocks(bench, product(bench, size, 16), **options).report.tables["weights"]
    assert foretold == [row["bytes"]]


def test_wide_without_any_weight_is_refused(bench):
    with pytest.raises(UsageError, match="no weight that goes into blocks lies in mean"):
        blocks(bench, reduced(bench), wide=("mean",))


def test_activations_in_float_are_refused_for_what_another_backend_alone_runs(bench):
    model = product(bench, 64, 16).model_copy(update={"only": "openvino"})
    with pytest.raises(StageFailed, match="only openvino runs this graph"):
        blocks(bench, model, activations="float")
    assert blocks(bench, model).model.only == "openvino"


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"numerics": "int4", "method": "hqq", "samples": 8}, "samples is for method: gptq, and this is hqq"),
        ({"numerics": "int4", "method": "rtn", "batch": 8}, "batch is for method: gptq, and this is rtn"),
        ({"numerics": "int4", "method": "gptq", "samples": 8, "batch": 4}, None),
        ({"numerics": "int4", "samples": 8}, None),
        ({"numerics": "fp16", "exclude": ("head",)}, "exclude is for int8, int4 and fp8, and this is fp16"),
        ({"numerics": "bf16", "exclude": ("head",)}, "and this is bf16"),
        ({"numerics": "auto", "exclude": ("head",)}, None),
    ],
)
def test_options_without_effect_are_refused(options, wrong):
    clash = Quantize(**options).clash()
    assert clash is None if wrong is None else wrong in clash


def test_a_form_that_looks_at_no_rows_has_no_options_of_them():
    assert in_blocks(Quantize(numerics="int4", method="hqq", samples=8, batch=4), VNNI).clash() is None


@pytest.mark.parametrize(("target", "kind"), [(VNNI, "int8"), (A100, "float")], ids=["cpu", "card"])
def test_a_label_says_what_wide_means_there(bench, target, kind):
    made = Quantization(rules=target.rules, method="rtn", details={"block": 128, "wide": ["one", "two"]})
    model = product(bench, 32, 16).model_copy(update={"numerics": "int4", "quantization": made})
    assert f"2 nodes in {kind}" in Candidate(model).label


def test_what_a_subgraph_gives_out_as_it_is_counts_as_read():
    inside = helper.make_graph([], "then", [], [helper.make_tensor_value_info("kept", TensorProto.FLOAT, [1])])
    node = helper.make_node("If", ["condition"], ["y"], then_branch=inside, else_branch=inside)
    assert reads([node]) == {"condition", "kept"}


def test_a_constant_may_be_an_output_of_a_graph_in_pieces(bench):
    model = product(bench, 16, 8)
    proto = onnx.load(model.entry_path)
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 8]))
    onnx.save(proto, model.entry_path)
    got = answers(model.model_copy(update={"on_disk": True}), {"x": random(2, 16, seed=1)})
    np.testing.assert_array_equal(got["w"], random(16, 8))
