"""Values are those of scikit-learn and numpy; batches are padded, cut, and compared with single rows."""

import numpy as np
import onnx
import pytest
import torch
import zoo
from doors import VNNI, answers, rows_for
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error

from mlpack.core.arrays import load_arrays
from mlpack.core.backend_options import BackendOptions
from mlpack.core.report import Report
from mlpack.errors import UsageError
from mlpack.stages.check_accuracy import KEPT, CheckAccuracy
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize

ROWS = 45


def served(model, backend="onnxruntime"):
    return model.model_copy(update={"backend": backend, "backend_options": BackendOptions(threads=1)})


def check(bench, model, arrays, **options):
    job = bench.job(parts={"confirming": bench.data(**arrays)})
    stage = CheckAccuracy(**{"metric": "top1", "batch": 8, **options})
    outcome = stage.run(model, job)
    assert outcome.model == model
    return outcome.report.metrics, load_arrays(job.out / KEPT)


@pytest.fixture
def labelled():
    return {**rows_for("mlp", ROWS), "labels": np.random.default_rng(1).integers(0, 3, ROWS)}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_top1_and_f1_are_scikit_learns(bench, kept, labelled, backend):
    model = served(kept.ready("mlp"), backend)
    predicted = answers(model, {"x": labelled["x"]}, backend)["output"].argmax(1)
    metrics, kept_rows = check(bench, model, labelled)
    assert metrics["value"] == pytest.approx(accuracy_score(labelled["labels"], predicted))
    assert metrics["samples"] == ROWS
    assert metrics["nonfinite"] == 0
    np.testing.assert_array_equal(kept_rows["rows"], np.arange(ROWS))
    np.testing.assert_array_equal(kept_rows["kept/score"].ravel() == 1, predicted == labelled["labels"])
    metrics, _ = check(bench, model, labelled, metric="f1")
    assert metrics["value"] == pytest.approx(f1_score(labelled["labels"], predicted, average="macro"))


def test_mse_is_scikit_learns(bench, kept):
    rows = rows_for("mlp", ROWS)
    targets = np.random.default_rng(1).standard_normal((ROWS, 3)).astype(np.float32)
    model = served(kept.ready("mlp"))
    metrics, _ = check(bench, model, {**rows, "labels": targets}, metric="mse")
    assert metrics["value"] == pytest.approx(mean_squared_error(targets, answers(model, rows)["output"]), rel=1e-5)


def test_the_original_module_is_scored_like_its_export(bench, kept, labelled):
    one, _ = check(bench, kept.factory("mlp"), labelled)
    two, _ = check(bench, served(kept.ready("mlp")), labelled)
    assert one["value"] == two["value"]


def test_nan_is_counted_and_gives_no_value(bench, kept, labelled):
    out = bench.job().out
    proto = onnx.load(kept.ready("mlp").entry_path)
    last = proto.graph.node[-1]
    root = onnx.helper.make_node("Sqrt", ["before"], [last.output[0]], name="root")
    last.output[0] = "before"
    proto.graph.node.append(root)
    onnx.save(proto, out / "model.onnx")
    model = served(kept.ready("mlp").model_copy(update={"path": out}))
    wrong = np.isnan(answers(model, {"x": labelled["x"]})["output"]).any(1).sum()
    assert wrong > 0
    metrics, _ = check(bench, model, labelled)
    assert metrics["nonfinite"] == wrong
    assert metrics["value"] is None


def test_a_static_batch_is_padded_and_cut(bench, kept, labelled):
    path = bench.folder / "model.pt2"
    torch.export.save(torch.export.export(zoo.mlp().eval(), (torch.randn(4, 8),)), path)
    fixed = served(Export().run(bench.load(path), bench.job()).model)
    metrics, kept_rows = check(bench, fixed, labelled)
    expected, whole = check(bench, served(kept.ready("mlp")), labelled)
    assert metrics["value"] == expected["value"]
    assert metrics["samples"] == ROWS == len(kept_rows["rows"])
    assert metrics["batch"] is None
    np.testing.assert_array_equal(kept_rows["kept/score"], whole["kept/score"])


def test_batch_mates_change_the_answers_of_dynamic_int8_only(bench, kept):
    scales = np.geomspace(0.01, 100, 32, dtype=np.float32)[:, None]
    rows = {"x": rows_for("mlp", 32)["x"] * scales, "labels": np.zeros(32, np.int64)}
    plain = kept.ready("mlp")
    calibration = {"calibration": bench.data(x=rows["x"])}
    dynamic = Quantize(numerics="int8", method="dynamic").run(plain, bench.job()).model
    static = Quantize(numerics="int8", method="static", operators="all").run(plain, bench.job(parts=calibration)).model

    def spread(model):
        return check(bench, served(model), rows, batch=32)[0]["batch_spread"]

    assert spread(dynamic) > 1e-3
    assert spread(static) < 1e-5
    assert spread(plain) < 1e-5


def test_without_data_there_is_nothing_to_check(bench, kept):
    with pytest.raises(UsageError) as caught:
        CheckAccuracy(metric="top1").run(served(kept.ready("mlp")), bench.job(target=VNNI))
    assert "--data" in caught.value.hint


def test_scoring_ends_once_the_rest_cannot_reach_what_is_asked(bench, kept, labelled):
    model = served(kept.ready("mlp"))
    whole, rows = check(bench, model, labelled)
    assert whole["at_best"] is None
    right = rows["kept/score"].ravel()
    reach = whole["value"] + 0.2
    part, seen = check(bench, model, labelled, reach=reach)
    assert part["samples"] == len(seen["rows"]) < ROWS
    np.testing.assert_array_equal(seen["kept/score"].ravel(), right[: part["samples"]])
    lost = part["samples"] - right[: part["samples"]].sum()
    assert part["at_best"] == pytest.approx((ROWS - lost) / ROWS)
    assert part["at_best"] < reach
    # One batch before, all could still have come right.
    before = part["samples"] - 8
    assert (ROWS - (before - right[:before].sum())) / ROWS >= reach


@pytest.mark.parametrize("metric", ["top1", "mse", "mae"])
def test_what_is_reached_is_scored_to_the_end(bench, kept, labelled, metric):
    rows = labelled
    if metric in {"mse", "mae"}:
        labels = np.random.default_rng(1).standard_normal((ROWS, 3)).astype(np.float32)
        rows = {**rows_for("mlp", ROWS), "labels": labels}
    model = served(kept.ready("mlp"))
    whole, _ = check(bench, model, rows, metric=metric)
    again, _ = check(bench, model, rows, metric=metric, reach=whole["value"])
    assert again == whole


def test_a_mean_error_that_is_passed_ends_it_too(bench, kept):
    labels = np.random.default_rng(1).standard_normal((ROWS, 3)).astype(np.float32)
    rows = {**rows_for("mlp", ROWS), "labels": labels}
    model = served(kept.ready("mlp"))
    whole, _ = check(bench, model, rows, metric="mse")
    part, _ = check(bench, model, rows, metric="mse", reach=whole["value"] / 3)
    assert part["samples"] < ROWS
    assert whole["value"] / 3 < part["at_best"] <= whole["value"]


def test_a_metric_of_the_whole_set_is_never_cut_short(bench, kept, labelled):
    whole, _ = check(bench, served(kept.ready("mlp")), labelled, metric="f1", reach=1.0)
    assert whole["samples"] == ROWS


def test_a_score_that_ended_early_serves_only_what_asks_for_more():
    def scored(at_best):
        return Report(metrics={"at_best": at_best})

    stage = CheckAccuracy(metric="top1", reach=0.9)
    assert stage.served_by(scored(None))
    assert stage.served_by(scored(0.8))
    assert not stage.served_by(scored(0.95))
    assert not CheckAccuracy(metric="top1").served_by(scored(0.1)), "all rows are wanted"
    assert CheckAccuracy(metric="mse", reach=0.5).served_by(scored(0.8))
    assert not CheckAccuracy(metric="mse", reach=0.5).served_by(scored(0.4))
    assert stage.keyed() == CheckAccuracy(metric="top1").keyed(), "a whole score is the same with any"
