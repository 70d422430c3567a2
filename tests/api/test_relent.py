"""Where int8 as a whole misses the limit, its most sensitive layer goes back to float, and the rest stays int8."""

import re

import numpy as np
import pytest

import mlpack
from mlpack.errors import GateFailed, UsageError

ONE_BAD_LAYER = """
import torch
from torch import nn

class Net(nn.Module):
    '''Reads small features beside one that is ten thousand times larger: no 8 bits hold both. All else is tame.'''

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(16, 64)
        self.body = nn.Linear(64, 64)
        self.last = nn.Linear(64, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        x = torch.relu(self.mix(x))
        return self.head(torch.relu(self.last(torch.relu(self.body(x)))))

def model():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.mix.weight[:, 0] = 0.0
        # As many answers of each class.
        net.head.bias -= net(torch.randn(2000, 16)).mean(0)
    return net
"""


@pytest.fixture
def made(tmp_path, answers_of):
    """The factory, and data whose labels are the original's own answers. Off target, so that no timing decides."""
    path, x, logits = answers_of(ONE_BAD_LAYER, rows=3000, largest=1e4)
    # What is nearly a tie tells nothing of a model.
    best = logits.topk(2, 1).values
    clear = (best[:, 0] - best[:, 1] > best.std() / 20).numpy()
    np.savez(tmp_path / "data.npz", x=x[clear], labels=logits.argmax(1).numpy()[clear])
    return {
        "model": f"{path}:model", "data": tmp_path / "data.npz", "target": "a100", "backend": "onnxruntime",
        "store": tmp_path / "store",
    }  # fmt: skip


@pytest.mark.slow
def test_the_layer_that_costs_the_accuracy_goes_back_to_float_and_the_promise_is_kept(made):
    done = mlpack.optimize(**made, numerics="int8", max_drop="5%").stored.artifact
    assert done.model.numerics == "int8"
    assert done.accuracy.verdict in {"pass", "likely"}
    details = done.model.quantization.details
    assert any(node.startswith("mix/") for node in details["exclude"])
    assert not any(node.startswith(("body/", "last/")) for node in details["exclude"])
    assert 0.85 < done.model.numerics_share < 1
    tried = [each for each in done.candidates if each.numerics == "int8"]
    assert any("over the limit" in each.why and "without" not in each.label for each in tried)
    chosen = next(each for each in tried if each.chosen)
    assert "without" in chosen.label
    again = mlpack.optimize(**made, numerics="int8", max_drop="5%")
    assert again.unchanged, "a repeated search goes the same way"


@pytest.mark.slow
def test_with_the_time_up_nothing_milder_is_tried_and_the_refusal_stands(made):
    with pytest.raises(GateFailed, match=r"time limit of 0\.001s was over"):
        mlpack.optimize(**made, numerics="int8", max_drop="5%", time_limit="0.001s")


@pytest.mark.slow
def test_auto_with_the_time_up_publishes_the_best_so_far(made):
    done = mlpack.optimize(**made, auto=True, max_drop="5%", time_limit="0.001s").stored.artifact
    assert done.model.numerics == "fp32"
    assert [each.chosen for each in done.candidates] == [True]


@pytest.mark.parametrize("limit", ["20", "0m", "-3s", "m", "1d", ""])
def test_a_time_limit_that_is_none_is_refused_before_anything_runs(made, limit):
    with pytest.raises(UsageError, match="no length of time"):
        mlpack.optimize(**made, time_limit=limit)
    with pytest.raises(UsageError, match="no length of time"):
        mlpack.plan(made["model"], data=made["data"], time_limit=limit)


RECIPE = """
source: {{model: "{model}"}}
data: {{evaluation: "{data}"}}
target: a100
limit: 5%
steps:
- export
- simplify
- quantize: {{numerics: int8, method: static, operators: all}}
- compile: {{backend: onnxruntime}}
"""


@pytest.mark.slow
def test_what_collapses_is_scored_on_a_part_and_said_so(made, tmp_path):
    (tmp_path / "int8.yaml").write_text(RECIPE.format(**made))
    with pytest.raises(GateFailed, match=r"drops [\d.]+pt on [\d,]+ of [\d,]+ samples, over the limit") as refused:
        mlpack.optimize(tmp_path / "int8.yaml", store=made["store"])
    offered = re.search(r"--max-drop ([\d.]+%)", refused.value.hint)
    assert offered, "the limit that would pass, which takes a score of all rows"
    done = mlpack.optimize(tmp_path / "int8.yaml", store=made["store"], max_drop=offered[1]).stored.artifact
    assert done.candidates[0].chosen
