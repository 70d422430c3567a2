"""Quantization-aware training: int8 answers nearer to the float graph, and only numbers of the graph move."""

import numpy as np
import onnx
import pytest
from doors import A100, AVX2, VNNI, answers, relative, rows_for

from mlpack.errors import DataError, StageFailed, UsageError
from mlpack.stages.quantize import Quantize
from mlpack.stages.quantize_training import QuantizedTraining

ROWS = 256
SHORT = {"epochs": 4, "batch": 16, "learning_rate": 1e-3, "patience": 0}
# Ranges found on rows that are so much larger than those to come leave these few of the 8 bits.
TOO_LARGE = 20


def stage(train="always", operators="all", training=None, **options):
    told = QuantizedTraining(**{**SHORT, **(training or {})})
    return Quantize(
        numerics="int8", method="static", operators=operators, train=train, **options,
        **({"training": told} if train != "never" else {}),
    )  # fmt: skip


def job_of(bench, name, labels=None, target=VNNI, larger=1):
    rows, calibration = rows_for(name, ROWS, seed=1), rows_for(name, 64)
    if larger != 1:
        calibration = {each: larger * array for each, array in calibration.items()}
    train = bench.data(**rows, **({} if labels is None else {"labels": labels}))
    return bench.job(parts={"calibration": bench.data(**calibration), "train": train}, target=target)


@pytest.mark.parametrize(
    ("name", "operators", "target"),
    [("conv_net", "all", VNNI), ("residual", "weighted", A100), ("mlp", "weighted", AVX2)],
    ids=lambda value: getattr(value, "name", value),
)
def test_it_answers_nearer_to_the_float_graph(bench, kept, name, operators, target):
    ready = kept.ready(name)
    plain, done = (
        stage(train, operators).run(ready, job_of(bench, name, target=target, larger=TOO_LARGE))
        for train in ("never", "always")
    )
    told = done.report.metrics["training"]
    assert told["alpha"] == 0
    assert told["sqnr_before"].keys() == told["sqnr_after"].keys() == {"output"}
    assert told["difference"] < 0.02
    history = done.report.tables["history"]
    assert history[0]["step"] == 0
    assert min(row["held_out_loss"] for row in history) < history[0]["held_out_loss"]
    rows = rows_for(name, 64, seed=7)
    expected, was, now = (answers(model, rows)["output"] for model in (ready, plain.model, done.model))
    assert relative(expected, now) < relative(expected, was) / 2
    for one, other in zip(
        *(onnx.load(model.entry_path).graph.node for model in (plain.model, done.model)), strict=True
    ):
        assert one.SerializeToString() == other.SerializeToString()
    assert done.model.numerics_share == plain.model.numerics_share
    assert done.model.quantization.details["train"] == "always"


def test_labels_are_learnt_too(bench, kept):
    """Half of the answers are wrong by the labels: with them alone the graph leaves the float graph behind."""
    ready, rows = kept.ready("mlp"), rows_for("mlp", ROWS, seed=1)
    labels = (answers(ready, rows)["output"].argmax(1) + (np.arange(ROWS) % 2)) % 3
    both, alone = (
        stage(training={"alpha": alpha}).run(ready, job_of(bench, "mlp", labels)).report for alpha in (None, 1.0)
    )
    assert both.metrics["training"]["alpha"] == 0.5
    assert alone.metrics["training"]["alpha"] == 1
    assert both.metrics["training"]["sqnr_after"]["output"] > alone.metrics["training"]["sqnr_after"]["output"]
    assert all(0 < row["held_out_right"] < 1 for row in alone.tables["history"])


def test_openvino_runs_what_was_trained(bench, kept):
    done = stage().run(kept.ready("conv_net"), job_of(bench, "conv_net")).model
    rows = rows_for("conv_net", 32, seed=7)
    assert relative(answers(done, rows)["output"], answers(done, rows, "openvino")["output"]) < 0.05


def test_ranges_stay_where_they_are_not_to_be_learnt(bench, kept):
    ready = kept.ready("mlp")
    plain, held, learnt = (
        stage(train, training={"learn_ranges": learn})
        .run(ready, job_of(bench, "mlp"))
        .report.tables["calibration_ranges"]
        for train, learn in (("never", True), ("always", False), ("always", True))
    )
    assert held == plain != learnt


def test_a_killed_training_goes_on_and_ends_the_same(bench, kept):
    class Killed(Exception):
        pass

    ready, told = kept.ready("mlp"), {"checkpoint_s": 0}
    whole = stage(training=told).run(ready, job_of(bench, "mlp")).model
    job = job_of(bench, "mlp")
    heard = []

    def say(text, done=None, total=None):
        heard.append((text, done))
        if done is not None and done > 20 and "training" in text:
            raise Killed

    job.say = say
    with pytest.raises(Killed):
        stage(training=told).run(ready, job)
    assert list(job.unfinished.iterdir())
    again = job_of(bench, "mlp")
    again.out = job.out
    assert stage(training=told).run(ready, again).model.digests() == whole.digests()


def test_weights_in_other_files_are_trained_too(bench, kept):
    inside = kept.ready("mlp")
    outside = inside.model_copy(update={"path": bench.job().out})
    onnx.save(
        onnx.load(inside.entry_path), outside.entry_path, save_as_external_data=True, location="w", size_threshold=0
    )
    one, two = (stage().run(model, job_of(bench, "mlp")).model for model in (inside, outside))
    rows = rows_for("mlp", 16, seed=7)
    assert np.array_equal(answers(one, rows)["output"], answers(two, rows)["output"])


@pytest.mark.parametrize("inline_bytes", [0, 10**9], ids=["beside the graph", "within it"])
def test_what_was_there_before_the_training_is_not_kept_beside_it(bench, kept, monkeypatch, inline_bytes):
    monkeypatch.setattr("mlpack.stages.quantize_train._INLINE_BYTES", inline_bytes)
    inside = kept.ready("residual")
    outside = inside.model_copy(update={"path": bench.job().out})
    onnx.save(
        onnx.load(inside.entry_path), outside.entry_path, save_as_external_data=True, location="w", size_threshold=0
    )
    before, after = (
        stage(train, training={"epochs": 1}).run(outside, job_of(bench, "residual")).model.path / "model.onnx.data"
        for train in ("never", "always")
    )
    assert before.exists()
    assert after.exists() == (inline_bytes == 0)
    if after.exists():
        assert after.stat().st_size <= before.stat().st_size


def test_fewer_rows_than_a_static_batch_are_refused(bench, kept):
    ready, rows = kept.ready("mlp"), rows_for("mlp", 20)
    graph = onnx.load(ready.entry_path)
    for each in (*graph.graph.input, *graph.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = 32
    static = ready.model_copy(
        update={
            "path": bench.job().out,
            "inputs": tuple(each.model_copy(update={"dims": (32, *each.dims[1:])}) for each in ready.inputs),
        }
    )
    onnx.save(graph, static.entry_path)
    job = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 64)), "train": bench.data(**rows)})
    with pytest.raises(DataError, match="20 training rows are too few to learn from"):
        stage(operators="weighted").run(static, job)


def test_places_that_are_not_scored_are_neither_right_nor_wrong(bench, kept):
    ready, rows = kept.ready("mlp"), rows_for("mlp", ROWS, seed=1)
    labels = np.where(np.arange(ROWS) % 2, answers(ready, rows)["output"].argmax(1), -100)
    done = stage(operators="weighted", training={"alpha": 1.0}).run(ready, job_of(bench, "mlp", labels))
    assert done.report.tables["history"][0]["held_out_right"] > 0.8


def test_without_rows_there_is_nothing_to_train_on(bench, kept):
    job = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 64))})
    with pytest.raises(DataError, match="there is nothing to train on"):
        stage().run(kept.ready("mlp"), job)


def test_an_operator_that_cannot_be_trained_through_is_named(bench, kept):
    ready = kept.ready("mlp")
    graph = onnx.load(ready.entry_path)
    graph.graph.node.append(onnx.helper.make_node("Acosh", [graph.graph.node[0].output[0]], ["more"], name="strange"))
    graph.graph.output.append(onnx.ValueInfoProto(name="more"))
    strange = ready.model_copy(update={"path": bench.job().out})
    onnx.save(graph, strange.entry_path)
    with pytest.raises(StageFailed, match="operator Acosh cannot be trained through"):
        stage(operators="weighted").run(strange, job_of(bench, "mlp"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"numerics": "fp16", "train": "always"}, "train is for static int8 alone, and this is fp16"),
        ({"numerics": "int8", "method": "dynamic", "train": "needed"}, "train is for static int8 alone"),
        ({"numerics": "fp8", "method": "static", "train": "always"}, "train is not for fp8"),
        ({"numerics": "int8", "training": {"epochs": 1}}, "training says how, and train: never"),
        ({"numerics": "int8", "train": "needed", "training": {"batch_norm": "frozen"}}, "training.batch_norm is for"),
        ({"numerics": "int8", "train": "always", "training": {"alpha": 0, "output": "y"}}, "training.output says"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_runs(options, reason):
    assert reason in Quantize(**options).clash()


def test_only_what_is_trained_reads_training_rows_and_waits_for_torch():
    assert stage("needed").reads() == stage("never").reads() == ("calibration",)
    assert stage("always").reads() == ("calibration", "train")
    assert "torch" in stage("always").needs()
    assert "torch" not in {*stage("needed").needs(), *stage("never").needs()}
    assert stage("always").imports(None) == ("torch",)
    assert stage("needed").imports(None) == stage("never").imports(None) == ()


def test_how_often_it_is_kept_changes_no_key():
    often, seldom = (stage(training={"checkpoint_s": seconds}) for seconds in (0, 60))
    assert often.keyed() == seldom.keyed() != stage(training={"epochs": 5}).keyed()


def test_a_share_of_labels_that_are_not_there_is_refused(bench, kept):
    with pytest.raises(UsageError, match=r"alpha is 0\.5, and the training rows have no labels"):
        stage(training={"alpha": 0.5}).run(kept.ready("mlp"), job_of(bench, "mlp"))
