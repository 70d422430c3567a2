"""Where int8 misses the limit and there is something to train on, it is trained before layers go back to float."""

import numpy as np
import pytest

import mlpack
from mlpack.errors import DataError, UsageError

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    '''Reads small features beside one that is a hundred times larger and tells nothing: of 8 bits it takes most.'''

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(16, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(torch.relu(self.mix(x)))

def model():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.mix.weight[:, 0] = 0.0
        net.head.bias -= net(torch.randn(2000, 16)).mean(0)
    return net
"""


@pytest.fixture
def made(tmp_path, answers_of):
    """The factory, data whose labels are the original's own answers, and rows to train on, without labels."""
    path, x, logits = answers_of(FACTORY, rows=6000, largest=100)
    np.savez(tmp_path / "data.npz", x=x[:3000], labels=logits.argmax(1).numpy()[:3000])
    np.savez(tmp_path / "train.npz", x=x[3000:])
    return {
        "model": f"{path}:model", "data": tmp_path / "data.npz", "target": "a100", "backend": "onnxruntime",
        "store": tmp_path / "store",
    }  # fmt: skip


@pytest.mark.slow
def test_what_misses_the_limit_is_trained_and_all_of_it_stays_int8(made, tmp_path):
    told = {"numerics": "int8", "max_drop": "5%", "train": tmp_path / "train.npz"}
    settings = ["quantize.training.epochs=20", "quantize.training.learning_rate=0.003", "quantize.operators=weighted"]
    done = mlpack.optimize(**made, **told, settings=settings).stored.artifact
    assert done.accuracy.verdict in {"pass", "likely"}
    assert done.model.numerics_share == 1
    details = done.model.quantization.details
    assert details["train"] == "always"
    assert details["training"]["epochs"] == 20
    assert not details["exclude"]
    tried = {each.label: each.why for each in done.candidates if each.numerics == "int8"}
    assert any("over the limit" in why and "trained" not in label for label, why in tried.items())
    assert next(each for each in done.candidates if each.chosen).label.count("trained") == 1


@pytest.mark.parametrize(
    "wanted", [{}, {"numerics": "fp16"}, {"numerics": "int8", "max_drop": "none"}], ids=["fastest", "fp16", "no limit"]
)
def test_training_rows_that_nothing_is_trained_on_are_refused(made, tmp_path, wanted):
    with pytest.raises(UsageError, match="--train: no step trains on it"):
        mlpack.plan(made["model"], data=made["data"], train=tmp_path / "train.npz", **wanted)


def test_what_is_to_be_trained_without_rows_is_refused_before_anything_runs(made):
    told = {"numerics": "int8", "settings": ["quantize.train=always", "quantize.method=static"]}
    with pytest.raises(DataError, match="quantize has nothing to learn from"):
        mlpack.optimize(**made, **told)


def test_half_of_the_time_limit_is_for_training(made, tmp_path):
    from mlpack.api.wanted import recipe_for
    from mlpack.core.settings import load_settings

    told = {"data": made["data"], "train": tmp_path / "train.npz", "numerics": "int8", "time_limit": "10m"}
    recipe = recipe_for(load_settings(tmp_path), made["model"], told)
    (quantize,) = [step for step in recipe.steps if step.stage == "quantize"]
    assert quantize.options["train"] == "needed"
    assert quantize.options["training"]["seconds"] == 300
