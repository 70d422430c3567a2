"""What labels of training rows tell prune, of every kind; where they fit nothing, the model's own answers count."""

from __future__ import annotations

import numpy as np
import pytest
from doors import of_batch, rows_for

from mlpack.errors import StageFailed, UsageError
from mlpack.stages.prune import Prune

pytest.importorskip("torch_pruning")
CLASSES = np.arange(40) % 3
NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 1)
        self.ending = ending

    def forward(self, x):
        x = torch.relu(self.middle(torch.relu(self.first(x))))
        return self.last(x) if self.ending == "number" else x.argmax(-1)


def number():
    torch.manual_seed(0)
    return Net("number").eval()


def chosen():
    torch.manual_seed(0)
    return Net("chosen").eval()
"""


def pruned(bench, model, labels, name="mlp", count=40, **options):
    rows = rows_for(name, count)
    parts = {"train": bench.data(**rows, labels=labels[:count]), "calibration": bench.data(**rows)}
    return Prune(**{"amount": 0.3, "multiple": 1, **options}).run(model, bench.job(parts=parts)).report.metrics


@pytest.fixture
def nets(place_of_nets, bench):
    return lambda name: bench.load(f"{place_of_nets}:{name}", inputs=("x=float32:batch,8",))


@pytest.fixture
def place_of_nets(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


@pytest.mark.parametrize("options", [{}, {"pattern": "unstructured", "force": True, "multiple": None}])
@pytest.mark.parametrize(
    "labels", [CLASSES, CLASSES[:, None], np.where(CLASSES == 2, -100, CLASSES), np.full(40, -100)]
)
def test_classes(bench, labels, options):
    assert pruned(bench, bench.factory("mlp"), labels, **options)["by"] == "labels"


@pytest.mark.parametrize("labels", [np.arange(40), np.arange(40)[:, None], np.linspace(0, 1, 40, dtype=np.float32)])
def test_numbers_whole_or_not_beside_an_output_of_one_column(bench, nets, labels):
    assert pruned(bench, nets("number"), labels)["by"] == "labels"


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.where(np.arange(40) == 21, 9, CLASSES), "the training label 9 is none of the"),
        (np.where(np.arange(40) == 21, -1, CLASSES), "the training label -1 is none of the"),
        (np.zeros((40, 5), np.float32), "fit no output of the model"),
        (np.zeros((40, 7), np.int64), "fit no output of the model"),
    ],
)
def test_labels_that_fit_nothing_are_left_and_said(bench, labels, why):
    told = pruned(bench, bench.factory("mlp"), labels)
    assert told["by"].startswith("the model's own answers, as ")
    assert why in told["by"]
    assert told["flops_gone"] >= 0.295


def test_a_batch_that_the_training_rows_do_not_fill(bench):
    told = pruned(bench, of_batch(bench.factory("mlp"), 48), CLASSES)
    assert told["by"].endswith("there are fewer training rows than the 48 of the model's batch")
    assert told["rows_are"] == "synthetic"


def test_a_fixed_batch_is_filled_as_often_as_it_can_be(bench):
    told = pruned(bench, of_batch(bench.factory("mlp"), 3), CLASSES)
    assert (told["by"], told["rows"], told["rows_are"]) == ("labels", 39, "real")


def test_the_output_that_is_named(bench):
    model = bench.factory("mlp")
    assert pruned(bench, model, CLASSES, output="output")["by"] == "labels"
    with pytest.raises(UsageError, match="nothing"):
        pruned(bench, model, CLASSES, output="nothing")


def test_whole_numbers_alone_tell_nothing_and_weights_do(bench, nets):
    model = nets("chosen")
    with pytest.raises(StageFailed, match="no output of this module has a gradient"):
        pruned(bench, model, CLASSES)
    mask = {"pattern": "unstructured", "force": True, "multiple": None}
    assert pruned(bench, model, CLASSES, criterion="magnitude", **mask)["zeros"] == pytest.approx(0.3, abs=1e-3)
