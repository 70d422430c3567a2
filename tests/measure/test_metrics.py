"""Metrics against their definitions and against scikit-learn and scipy; and what they refuse."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, top_k_accuracy_score

from mlpack.core.model import TensorSpec
from mlpack.errors import DataError, UsageError
from mlpack.measure.metrics import agreement_scores, choose_metric_name, join, metric, nonfinite


def value(name, outputs, labels, output=None):
    used = metric(name, labels=True, output=output)
    return used.reduce(join([used.keep(outputs, labels)]))


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(7, 12), st.integers(20, 80))
def test_classes_against_scikit_learn(seed, columns, n):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, columns)).astype(np.float32)
    labels = np.concatenate([np.arange(columns), rng.integers(0, columns, n - columns)])
    known = np.arange(columns)
    assert value("top1", {"y": logits}, labels) == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert value("top5", {"y": logits}, labels) == pytest.approx(
        top_k_accuracy_score(labels, logits, k=5, labels=known)
    )
    assert value("f1", {"y": logits}, labels) == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"))
    binary = labels % 2
    assert value("f1", {"y": logits[:, :2]}, binary) == pytest.approx(
        f1_score(binary, logits[:, :2].argmax(1), average="macro")
    )


@given(arrays(np.float64, 30, elements=st.integers(-5, 5).map(float)), st.integers(0, 2**32 - 1))
def test_correlations_against_scipy(predicted, seed):
    labels = np.random.default_rng(seed).integers(0, 6, 30).astype(float)
    if np.ptp(labels) == 0:
        return
    for name, theirs in (("spearman", scipy.stats.spearmanr), ("pearson", scipy.stats.pearsonr)):
        got = value(name, {"y": predicted[:, None]}, labels)
        assert got == pytest.approx(theirs(predicted, labels).statistic if np.ptp(predicted) else 0.0)


def test_distances():
    labels = np.array([1.0, 2.0, 4.0])
    outputs = {"y": np.array([[1.0], [4.0], [3.0]], dtype=np.float32)}
    assert value("mse", outputs, labels) == pytest.approx(5 / 3)
    assert value("mae", outputs, labels) == pytest.approx(1.0)
    images = {"y": np.ones((2, 3, 4, 4), np.float32)}
    assert value("mse", images, np.zeros((2, 3, 4, 4))) == 1.0
    assert not metric("mse", labels=True, output=None).higher_is_better


def test_perplexity():
    uniform = np.zeros((2, 5, 8), np.float32)
    labels = np.array([[1, 2, 3, -100, -100], [0, 7, 7, 7, 7]])
    assert value("perplexity", {"y": uniform}, labels) == pytest.approx(8.0)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 9)) * 50
    wanted = rng.integers(0, 9, 6)
    nll = -np.log(np.exp(logits - logits.max(1, keepdims=True)) / np.exp(
        logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))[np.arange(6), wanted]  # fmt: skip
    assert value("perplexity", {"y": logits}, wanted) == pytest.approx(np.exp(nll.mean()))


def test_batches_make_the_same_number():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(101, 4)).astype(np.float16), rng.integers(0, 4, 101)
    for name in ("top1", "f1", "perplexity"):
        used = metric(name, labels=True, output=None)
        pieces = [used.keep({"y": logits[i : i + 8]}, labels[i : i + 8]) for i in range(0, 101, 8)]
        assert used.reduce(join(pieces)) == pytest.approx(used.reduce(used.keep({"y": logits}, labels)))
        assert all(len(array) == 101 for array in join(pieces).values())


def test_dtypes_of_labels_and_outputs():
    logits = np.array([[0.0, 1.0], [1.0, 0.0]])
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16):
        for labels in (np.array([1, 0], np.uint8), np.array([True, False]), np.array([[1], [0]])):
            assert value("top1", {"y": logits.astype(dtype)}, labels) == 1.0
            assert value("top1", {"y": logits.astype(dtype)}, labels.astype(float)) == 1.0


def test_a_row_with_nan_is_never_right():
    logits = np.array([[np.nan, 0.0], [np.nan, np.nan], [1.0, 0.0]])
    labels = np.zeros(3, int)
    assert value("top1", {"y": logits}, labels) == pytest.approx(1 / 3)
    assert value("f1", {"y": logits}, labels) == pytest.approx(0.5)
    assert nonfinite({"y": logits, "z": np.zeros(2), "i": np.zeros(2, int)}) == ["y"]
    assert nonfinite({"b": np.array([np.inf], ml_dtypes.bfloat16)}) == ["b"]


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "says"),
    [
        ("top1", {"y": np.zeros((2, 3))}, np.array([0, 3]), "label 3 is out of range"),
        ("top1", {"y": np.zeros((2, 3))}, np.array([0, -1]), "label -1 is out of range"),
        ("top1", {"y": np.zeros((2, 3))}, np.array([0.0, 1.5]), "not whole numbers"),
        ("top1", {"y": np.zeros((2, 3))}, np.array([0.0, np.nan]), "not whole numbers"),
        ("top1", {"y": np.zeros((2, 3))}, np.array(["a", "b"]), "wanted class numbers"),
        ("top1", {"y": np.zeros((2, 3))}, np.zeros((2, 2), int), "one class number per sample"),
        ("top1", {"y": np.zeros((3, 3))}, np.array([0, 1]), "no output fits"),
        ("top1", {"y": np.zeros(2)}, np.array([0, 1]), "no output fits"),
        ("top1", {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, np.array([0, 1]), "several outputs"),
        ("top5", {"y": np.zeros((2, 5))}, np.array([0, 1]), "no output fits"),
        ("mse", {"y": np.zeros((2, 3))}, np.array([0.0, 1.0]), "no output fits"),
        ("mse", {"y": np.zeros(2)}, np.array([0.0, np.nan]), "not finite"),
        ("spearman", {"y": np.zeros(2)}, np.zeros((2, 2)), "one label per sample"),
        ("perplexity", {"y": np.zeros((2, 4, 8))}, np.zeros((2, 3), int), "no output fits"),
        ("perplexity", {"y": np.zeros((2, 3, 8))}, np.full((2, 3), 8), "out of range"),
    ],
)
def test_refusals(name, outputs, labels, says):
    with pytest.raises(DataError, match=says) as refused:
        metric(name, labels=True, output=None).keep(outputs, labels)
    assert refused.value.hint
    assert "\n" not in refused.value.message


def test_output_by_name():
    outputs = {"a": np.eye(2), "b": 1 - np.eye(2), "loss": np.zeros(())}
    labels = np.array([0, 1])
    assert value("top1", outputs, labels, output="a") == 1.0
    assert value("top1", outputs, labels, output="b") == 0.0
    with pytest.raises(DataError) as several:
        value("top1", outputs, labels)
    assert several.value.hint == "--output a"
    with pytest.raises(UsageError, match="unknown output"):
        value("top1", outputs, labels, output="c")
    with pytest.raises(DataError, match="does not fit"):
        value("top1", outputs, labels, output="loss")


def test_names():
    with pytest.raises(UsageError, match="unknown metric") as wrong:
        metric("spearmann", labels=True, output=None)
    assert "spearman" in wrong.value.hint
    assert metric(None, labels=False, output=None).name == "agreement"
    with pytest.raises(DataError, match="needs labels"):
        metric("top1", labels=False, output=None)
    with pytest.raises(DataError):
        metric(None, labels=True, output=None)


def test_default_metric():
    logits, vector = TensorSpec(name="y", dtype="float32", dims=("batch", 2)), TensorSpec(
        name="v", dtype="float32", dims=("batch",))  # fmt: skip
    assert choose_metric_name([logits], np.array([0, 1])) == "top1"
    assert choose_metric_name([vector, logits], np.array([[0], [1]], np.uint8)) == "top1"
    assert choose_metric_name([vector], np.array([0.5, 1])) == "mse"
    assert choose_metric_name([logits], np.array([[0.0, 1.0]])) == "mse"
    words = np.array(["a"])
    for spec, labels in ((vector, np.array([1, 2])), (logits, np.array([0.0, 1.0])), (logits, words)):
        with pytest.raises(DataError) as refused:
            choose_metric_name([spec], labels)
        assert "--metric" in refused.value.hint


def test_agreement():
    used = metric("agreement", labels=False, output=None)
    original = {"y": np.eye(3, dtype=np.float32), "v": np.ones((3, 4), np.float32)}
    candidate = {"y": np.eye(3, dtype=np.float32)[[0, 1, 1]]}
    assert set(used.keep(original, None)) == {"class:y", "class:v"}
    flat = {"y": original["y"], "v": np.ones((3, 2, 2))}
    moved = {"y": candidate["y"], "v": np.ones((3, 2, 2)) * np.array([1.0, 1.06, 1.04])[:, None, None]}
    assert agreement_scores(used.keep(flat, None), used.keep(moved, None)).tolist() == [1, 0, 0]
    only = metric("agreement", labels=False, output="v")
    assert agreement_scores(only.keep(flat, None), only.keep(moved, None)).tolist() == [1, 0, 1]
    nan = used.keep({"y": np.full((3, 3), np.nan)}, None)
    assert agreement_scores(nan, nan).tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="belong together"):
        agreement_scores(used.keep(flat, None), only.keep(flat, None))
    with pytest.raises(DataError, match="one row per sample"):
        used.keep({"y": np.eye(3), "loss": np.zeros(())}, None)


def test_join_fills_up_shorter_batches_of_numbers_at_every_place():
    used = metric("agreement", labels=False, output=None)
    pieces = [used.keep({"y": np.ones((2, 3, 4))}, None), used.keep({"y": np.ones((2, 5, 4))}, None)]
    (joined,) = join(pieces).values()
    assert joined.shape == (4, 20)
    assert joined.sum(axis=1).tolist() == [12, 12, 20, 20]


def test_join_refuses_batches_of_different_shapes():
    with pytest.raises(DataError, match="batch to batch"):
        join([{"score": np.zeros((2, 3))}, {"score": np.zeros((2, 5))}])
    with pytest.raises(DataError, match="no samples"):
        join([])
