"""Losses: of which output and kind, zero where nothing is left to learn, and of one scale."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mlpack.errors import DataError, ModelError, UsageError
from mlpack.training.losses import (
    Projections,
    answers_of,
    check_classes,
    labelled_output,
    to_hidden,
    to_labels,
    to_teacher,
)


@pytest.fixture
def scores():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((5, 4), np.zeros(5, np.int64), "logits"),
        ((5, 4), np.zeros((5, 1), np.int32), "logits"),
        ((5, 7, 4), np.zeros((5, 7), np.int64), "logits"),
        ((5, 1), np.ones(5, np.float32), "numbers"),
        ((5, 1), np.ones(5, np.int64), "numbers"),
        ((5, 4), np.ones((5, 4), np.float64), "numbers"),
    ],
)
def test_labels_belong_to_an_output_by_their_shape_and_kind(shape, labels, expected):
    assert labelled_output({"y": torch.randn(shape)}, labels, None) == ("y", expected)


def test_probabilities_are_seen():
    table = torch.softmax(torch.randn(5, 4), 1)
    assert labelled_output({"y": table}, np.zeros(5, np.int64), None) == ("y", "probabilities")
    assert answers_of({"y": table, "z": torch.randn(5, 4), "n": torch.randn(5, 1)}, "auto") == {
        "y": "probabilities", "z": "logits", "n": "numbers",
    }  # fmt: skip


def test_labels_that_fit_none_or_several_are_refused():
    two = {"a": torch.randn(5, 4), "b": torch.randn(5, 3)}
    with pytest.raises(DataError, match="fit several outputs: a, b") as refused:
        labelled_output(two, np.zeros(5, np.int64), None, "quantize.training")
    assert refused.value.hint == "--set quantize.training.output=a"
    assert labelled_output(two, np.zeros(5, np.int64), "b") == ("b", "logits")
    with pytest.raises(DataError, match="fit no output"):
        labelled_output(two, np.zeros((5, 9), np.int64), None)
    with pytest.raises(UsageError, match="unknown output 'c'"):
        labelled_output(two, np.zeros(5, np.int64), "c")
    with pytest.raises(ModelError):
        answers_of({"y": torch.zeros(5, 2, dtype=torch.int64)}, "auto")


def test_classes_are_torchs_cross_entropy(scores):
    labels = torch.tensor([0, 3, -100, 1, 2])
    expected = functional.cross_entropy(scores[[0, 1, 3, 4]], labels[[0, 1, 3, 4]])
    torch.testing.assert_close(to_labels(scores, labels, "logits"), expected)
    torch.testing.assert_close(to_labels(torch.softmax(scores, 1), labels, "probabilities"), expected)
    places = scores.reshape(1, 5, 4)
    torch.testing.assert_close(to_labels(places, labels.reshape(1, 5), "logits"), expected)


def test_a_batch_in_which_nothing_is_scored_has_nothing_to_learn(scores):
    assert float(to_labels(scores, torch.full((5,), -100), "logits")) == 0


@pytest.mark.parametrize("wrong", [4, -1, -99])
def test_labels_are_numbers_of_columns(wrong):
    check_classes(np.array([[0, 3], [-100, 2]]), 4, np.array([7, 9]))
    check_classes(np.array([True, False]), 2, np.array([7, 9]))
    with pytest.raises(DataError, match=f"training row 9 has the label {wrong}, and the output has 4 columns"):
        check_classes(np.array([[0, 3], [1, wrong]]), 4, np.array([7, 9]))


@pytest.mark.parametrize("answers", ["logits", "numbers"])
def test_the_teacher_itself_has_nothing_left_to_learn(scores, answers):
    assert float(to_teacher(scores, scores.clone(), answers, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(to_teacher(scores, scores + torch.eye(5, 4), answers, 2.0)) > 0.01


def test_a_temperature_keeps_the_size_of_the_gradients(scores):
    sizes = []
    for temperature in (1.0, 8.0):
        given = scores.clone().requires_grad_()
        torch.autograd.backward(to_teacher(given, scores + torch.eye(5, 4), "logits", temperature))
        sizes.append(float(given.grad.norm()))
    assert 0.3 < sizes[1] / sizes[0] < 3


def test_numbers_of_any_scale_weigh_the_same(scores):
    one = to_teacher(scores, scores + 0.1, "numbers", 1.0)
    other = to_teacher(1000 * scores, 1000 * (scores + 0.1), "numbers", 1.0)
    torch.testing.assert_close(one, other)


def test_hidden_states_by_distance_and_by_angle(scores):
    assert float(to_hidden(3 * scores, scores, "cosine")) == pytest.approx(0, abs=1e-6)
    assert float(to_hidden(3 * scores, scores, "mse")) == pytest.approx(4)


@pytest.mark.parametrize(("one", "two"), [((2, 5, 8), (2, 5, 12)), ((2, 8, 3, 3), (2, 12, 3, 3))])
def test_states_of_another_width_are_mapped(one, two):
    maps = Projections()
    maps.add("a.b", torch.randn(one), torch.randn(two))
    assert maps("a.b", torch.randn(one)).shape == torch.Size(two)
    assert sum(each.numel() for each in maps.parameters()) == 8 * 12 + 12


def test_states_of_one_width_are_left_alone_and_of_other_kinds_refused():
    maps = Projections()
    state = torch.randn(2, 5, 8)
    maps.add("a", state, torch.randn(2, 5, 8))
    assert maps("a", state) is state
    with pytest.raises(ModelError, match="more than the width"):
        maps.add("b", state, torch.randn(2, 6, 9))
    with pytest.raises(ModelError, match="more than the width"):
        maps.add("b", state, torch.randn(2, 40))
