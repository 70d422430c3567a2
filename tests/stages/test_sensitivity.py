"""What each layer's quantization costs at the outputs: one layer at a time, in one graph with switches."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doors import VNNI, answers, rows_for

from mlpack.quantization.switched import switched
from mlpack.stages.measure_sensitivity import MeasureSensitivity
from mlpack.stages.quantize import Quantize
from mlpack.stages.time_layers import TimeLayers

FLAVOURS = [("static", "all"), ("static", "weighted"), ("dynamic", "weighted")]


def quantized(bench, model, rows, **options):
    told = {"numerics": "int8", "method": "static", "operators": "weighted", **options}
    return Quantize(**told).run(model, bench.job(parts={"calibration": bench.data(**rows)}, target=VNNI)).model


def measured(bench, before, after, rows):
    job = bench.job(parts={"calibration": bench.data(**rows)}, rivals={"before": before})
    return MeasureSensitivity().run(after, job).report


def noise(before, after, rows):
    """Of the whole graph, by running both in turn, unoptimized: what Q/DQ say literally."""
    found = []
    for output, true in answers(before, rows, graph_optimizations="off").items():
        got = answers(after, rows, graph_optimizations="off")[output]
        found.append(float(((got - true) ** 2).sum() / (true**2).sum()))
    return np.mean(found)


@pytest.mark.parametrize("name", ["mlp", "conv_net", "transformer", "siamese"])
@pytest.mark.parametrize(("method", "operators"), FLAVOURS)
def test_all_layers_together_are_the_quantized_graph_and_none_is_the_original(bench, kept, name, method, operators):
    before, rows = kept.ready(name), rows_for(name, 32)
    after = quantized(bench, before, rows, method=method, operators=operators)
    # Dynamic ranges are those of a batch: one batch, as the stage runs it.
    few = {key: array[:8] for key, array in rows.items()}
    report = measured(bench, before, after, few)
    assert report.metrics["noise"] == pytest.approx(noise(before, after, few), rel=0.05)
    layers = report.tables["layers"]
    assert layers
    assert all(0 < each["noise"] < 1 for each in layers)
    graph, parts = switched(onnx.load(before.entry_path), onnx.load(after.entry_path))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    off = {part.switch: np.array(False) for part in parts}
    for output, true in answers(before, few).items():
        np.testing.assert_allclose(session.run([output], {**few, **off})[0], true, rtol=1e-4, atol=1e-5)


def test_a_layer_with_its_activation_is_one_and_its_share_is_that_of_its_work(bench, kept):
    before, rows = kept.ready("conv_net"), rows_for("conv_net", 16)
    report = measured(bench, before, quantized(bench, before, rows, operators="all"), rows)
    convolutions = [each for each in report.tables["layers"] if len(each["nodes"]) > 1]
    kinds = {node.name: node.op_type for node in onnx.load(before.entry_path).graph.node}
    assert [sorted(kinds[node] for node in each["nodes"]) for each in convolutions] == [["Conv", "Relu"]] * 2
    assert math.fsum(each["share"] for each in report.tables["layers"]) == pytest.approx(1)


def test_what_is_left_in_float_is_no_layer_and_its_noise_is_gone(bench, kept):
    before, rows = kept.ready("transformer"), rows_for("transformer", 16)
    whole = measured(bench, before, quantized(bench, before, rows), rows)
    worst = max(whole.tables["layers"], key=lambda each: each["noise"])
    milder = measured(bench, before, quantized(bench, before, rows, exclude=tuple(worst["nodes"])), rows)
    assert worst["layer"] not in {each["layer"] for each in milder.tables["layers"]}
    assert milder.metrics["noise"] < whole.metrics["noise"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_modules_are_timed_before_and_after(bench, kept, backend):
    before, rows = kept.ready("conv_net"), rows_for("conv_net", 16)
    after = quantized(bench, before, rows).model_copy(update={"backend": backend})
    given = before.model_copy(update={"backend": backend})
    job = bench.job(parts={"calibration": bench.data(**rows)}, rivals={"before": given})
    modules = {row["module"]: row for row in TimeLayers().run(after, job).report.tables["modules"]}
    assert {"stem.norm", "body.norm"} <= modules.keys() or {"stem.conv", "body.conv"} <= modules.keys()
    assert sum(row["before"] for row in modules.values()) > 0
    assert sum(row["after"] for row in modules.values()) > 0
