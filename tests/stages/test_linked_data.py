"""Weights in files that have a second name, as in the store: every step reads them all the same."""

import os

import numpy as np
import onnx
import pytest
from doors import VNNI, answers, relative, rows_for

from mlpack.core.external_data import load_whole
from mlpack.errors import ModelError, StageFailed
from mlpack.measure.graph_cost import graph_cost
from mlpack.quantization.layer_errors import layer_errors
from mlpack.stages.measure_sensitivity import MeasureSensitivity
from mlpack.stages.quantize import Quantize
from mlpack.stages.quantize_flavours import in_blocks
from mlpack.stages.simplify import Simplify


@pytest.fixture
def linked(bench, kept):
    """`linked("mlp")`: the tiny model with all constants in a file of two names, which `onnx.load` refuses."""

    def of(name):
        model = kept.ready(name)
        out = bench.job().out
        beside = {"save_as_external_data": True, "size_threshold": 0, "location": "model.onnx.data"}
        onnx.save(onnx.load(model.entry_path), out / model.entry, **beside)
        made = link(model.model_copy(update={"path": out}))
        with pytest.raises(onnx.checker.ValidationError, match="hard links"):
            onnx.load(made.entry_path)
        return made

    return of


def link(model):
    """The model, each of whose files other than the graph gets a second name."""
    for file in list(model.files()):
        if file != model.entry_path:
            os.link(file, model.path.with_name(f"{model.path.name}-{file.name}"))
    return model


def test_all_that_lies_beside_is_read(linked, kept):
    expected = onnx.load(kept.ready("mlp").entry_path).graph.initializer
    found = load_whole(linked("mlp").entry_path).graph.initializer
    assert [each.name for each in found] == [each.name for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))
        assert not one.external_data


@pytest.mark.parametrize(
    "options",
    [
        {"numerics": "int4", "method": "gptq"},
        {"numerics": "int8", "method": "dynamic"},
        {"numerics": "int8", "method": "static", "operators": "weighted"},
        {"numerics": "fp16", "method": "cast"},
        {"numerics": "bf16", "method": "cast"},
    ],
    ids=lambda each: "-".join(each.values()),
)
def test_each_numerics_and_what_looks_at_layers(bench, linked, options):
    before, rows = linked("mlp"), rows_for("mlp", 32)
    parts = {"calibration": bench.data(**rows)}
    stage = Quantize(**options)
    stage = in_blocks(stage, VNNI) if stage.numerics == "int4" else stage
    after = stage.run(before, bench.job(parts=parts)).model
    assert all(relative(true, answers(after, rows)[name]) < 0.25 for name, true in answers(before, rows).items())
    if stage.numerics in {"int4", "int8"}:
        link(after)
        report = MeasureSensitivity().run(after, bench.job(parts=parts, rivals={"before": before})).report
        assert report.metrics["noise"] > 0
        inputs = bench.job().out / "rows.npz"
        np.savez(inputs, **rows)
        told = layer_errors(bench.job().say, str(before.entry_path), str(after.entry_path), str(inputs), 4, 1)
        assert told["layers"]


def test_training(bench, linked):
    before, rows = linked("mlp"), rows_for("mlp", 32)
    parts = {"calibration": bench.data(**rows), "train": bench.data(**rows_for("mlp", 64, seed=1))}
    told = {"numerics": "int8", "method": "static", "operators": "weighted", "train": "always"}
    stage = Quantize(**told, training={"epochs": 1, "batch": 16})
    after = stage.run(before, bench.job(parts=parts)).model
    assert all(relative(true, answers(after, rows)[name]) < 0.25 for name, true in answers(before, rows).items())


def test_fusions_and_counts(bench, linked, kept):
    model = linked("transformer")
    with pytest.raises(StageFailed, match="no attention of this graph"):
        Simplify(fusions="attention").run(model, bench.job())
    sizes = {"batch": 1}
    assert (
        graph_cost(model.entry_path, sizes).weights == graph_cost(kept.ready("transformer").entry_path, sizes).weights
    )


def test_a_file_of_the_store_is_a_source_too(bench, linked):
    model = linked("mlp")
    taken = bench.load(model.entry_path)
    rows = rows_for("mlp", 4)
    for name, true in answers(model, rows).items():
        np.testing.assert_array_equal(answers(taken, rows)[name], true)


def test_one_that_is_wrong_is_still_refused(bench, linked):
    model = linked("mlp")
    proto = onnx.load(model.entry_path, load_external_data=False)
    proto.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(proto, model.entry_path)
    with pytest.raises(ModelError, match="not a valid ONNX graph"):
        bench.load(model.entry_path)
