"""Which layer adds the noise: the quantized graph beside the one that it was made from."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from doors import VNNI, answers, rows_for

from mlpack.errors import UsageError
from mlpack.quantization.layer_errors import layer_errors
from mlpack.stages.quantize import Quantize


def quiet(text, done=None, total=None):
    """Says nothing."""


def quantized(bench, model, rows, **options):
    told = {"numerics": "int8", "method": "static", "operators": "weighted", **options}
    return Quantize(**told).run(model, bench.job(parts={"calibration": bench.data(**rows)}, target=VNNI)).model


def errors(bench, before, after, rows, step=1):
    inputs = bench.job().out / "inputs.npz"
    np.savez(inputs, **rows)
    return layer_errors(quiet, str(before.entry_path), str(after.entry_path), str(inputs), step, 1)


def test_a_graph_beside_itself_has_no_noise(bench, kept):
    model = kept.ready("conv_net")
    found = errors(bench, model, model, rows_for("conv_net", 4))
    assert found["layers"] == []
    assert found["samples"] == 4
    assert set(found["outputs"].values()) == {None}


@pytest.mark.parametrize("name", ["mlp", "conv_net"])
@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_every_quantized_layer_has_its_noise_and_the_output_has_that_of_all(bench, kept, name, method):
    before, rows = kept.ready(name), rows_for(name, 64)
    after = quantized(bench, before, rows, method=method)
    few = {key: array[:6] for key, array in rows.items()}
    found = errors(bench, before, after, few)
    weighted = {
        node.name for node in onnx.load(before.entry_path).graph.node
        if node.op_type in ({"Conv", "Gemm", "MatMul"} if method == "static" else {"Gemm", "MatMul"})
    }  # fmt: skip
    assert {each["layer"] for each in found["layers"]} >= weighted
    assert all(10 < each["own_sqnr"] < 100 for each in found["layers"])
    assert all(each["sqnr"] is None or each["sqnr"] <= 100 for each in found["layers"])
    order = [node.name for node in onnx.load(before.entry_path).graph.node]
    assert [each["layer"] for each in found["layers"]] == sorted(
        (each["layer"] for each in found["layers"]), key=order.index
    )
    [(output, reached)] = found["outputs"].items()
    alone = [{key: array[row : row + 1] for key, array in few.items()} for row in range(6)]
    true = np.concatenate([answers(before, one)[output] for one in alone])
    got = np.concatenate([answers(after, one)[output] for one in alone])
    assert reached == pytest.approx(10 * math.log10((true**2).sum() / ((true - got) ** 2).sum()), abs=0.5)


def test_the_first_layer_has_no_noise_but_its_own(bench, kept):
    before, rows = kept.ready("mlp"), rows_for("mlp", 64)
    first = errors(bench, before, quantized(bench, before, rows), {"x": rows["x"][:6]})["layers"][0]
    assert first["sqnr"] == pytest.approx(first["own_sqnr"], abs=0.1)


def test_what_is_excluded_stays_in_float_and_adds_no_noise(bench, kept):
    before, rows = kept.ready("mlp"), rows_for("mlp", 64)
    names = [node.name for node in onnx.load(before.entry_path).graph.node if node.op_type in {"Gemm", "MatMul"}]
    after = quantized(bench, before, rows, exclude=(names[0],))
    noisy = {each["layer"] for each in errors(bench, before, after, rows)["layers"]}
    assert names[0] not in noisy
    assert set(names[1:]) <= noisy


def test_excluding_what_is_not_there_is_refused_with_what_is_near(bench, kept):
    rows = rows_for("mlp", 64)
    name = next(node.name for node in onnx.load(kept.ready("mlp").entry_path).graph.node if node.op_type == "Gemm")
    with pytest.raises(UsageError) as refused:
        quantized(bench, kept.ready("mlp"), rows, exclude=(name[:-1] + "~",))
    assert "lies in" in refused.value.message
    assert name.partition("/")[0] in refused.value.hint
