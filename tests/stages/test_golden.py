"""Golden answers are given one at a time and the tolerance is three times the spread that was measured."""

import numpy as np
import pytest
import torch
import zoo
from doors import answers, rows_for

from mlpack.core.arrays import load_arrays
from mlpack.core.backend_options import BackendOptions
from mlpack.stages.export import Export
from mlpack.stages.golden import Golden
from mlpack.stages.quantize import Quantize


def made(bench, model, rows=None, **options):
    model = model.model_copy(update={"backend": "onnxruntime", "backend_options": BackendOptions(threads=1)})
    job = bench.job(parts={} if rows is None else {"calibration": bench.data(**rows)})
    report = Golden(**options).run(model, job).report
    return report, load_arrays(job.out / "inputs.npz"), load_arrays(job.out / "outputs.npz")


def one_by_one(model, rows):
    name = next(iter(rows))
    return np.concatenate([answers(model, {name: rows[name][at : at + 1]})["output"] for at in range(len(rows[name]))])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_answers_are_given_alone_on_the_first_calibration_rows(bench, kept, count):
    rows = rows_for("mlp", 10)
    report, inputs, outputs = made(bench, kept.ready("mlp"), rows, samples=count)
    np.testing.assert_array_equal(inputs["x"], rows["x"][:count])
    np.testing.assert_array_equal(outputs["output"], one_by_one(kept.ready("mlp"), inputs))
    assert report.metrics["samples"] == count
    assert report.metrics["batch"] == 1
    assert report.metrics["rows"] == "real"


def test_fp32_is_held_to_rounding(bench, kept):
    report, _, outputs = made(bench, kept.ready("mlp"), rows_for("mlp", 8))
    tolerance = report.metrics["tolerance"]["output"]
    assert tolerance["relative"] == 1e-5
    largest = float(np.abs(outputs["output"]).max())
    assert 1e-5 * largest <= tolerance["absolute"] < 1e-4 * largest


def test_dynamic_int8_is_given_three_times_what_its_batch_mates_change(bench, kept):
    model = Quantize(numerics="int8", method="dynamic").run(kept.ready("mlp"), bench.job()).model
    rows = {"x": rows_for("mlp", 8)["x"] * np.geomspace(0.1, 10, 8, dtype=np.float32)[:, None]}
    report, inputs, outputs = made(bench, model, rows)
    spread = max(
        np.abs(outputs["output"] - answers(model, inputs)["output"]).max(),
        *(
            np.abs(outputs["output"][at : at + 2] - answers(model, {"x": inputs["x"][at : at + 2]})["output"]).max()
            for at in range(0, 8, 2)
        ),
        np.abs(
            outputs["output"]
            - np.concatenate(
                [
                    answers(model, {"x": inputs["x"][at : at + 1]}, graph_optimizations="off")["output"]
                    for at in range(8)
                ]
            )
        ).max(),
    )
    assert spread > 1e-3
    assert report.metrics["tolerance"]["output"]["absolute"] == pytest.approx(3 * spread, rel=1e-4)


def test_a_static_batch_is_one_golden_request(bench):
    path = bench.folder / "model.pt2"
    torch.export.save(torch.export.export(zoo.mlp().eval(), (torch.randn(4, 8),)), path)
    fixed = Export().run(bench.load(path), bench.job()).model
    report, inputs, outputs = made(bench, fixed, rows_for("mlp", 9))
    assert (len(inputs["x"]), len(outputs["output"])) == (4, 4)
    assert report.metrics["batch"] == 4


def test_without_data_the_rows_are_synthetic(bench, kept):
    report, inputs, _ = made(bench, kept.ready("mlp"))
    assert report.metrics["rows"] == "synthetic"
    assert inputs["x"].shape == (8, 8)
