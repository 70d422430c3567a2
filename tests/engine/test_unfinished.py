"""A stage that trains is killed with its child: what follows goes on from its checkpoint and ends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
RECIPE = f"""
source: {{model: "{TINY}/model.py:model"}}
data: {{evaluation: "{TINY}/eval.npz", train: "{TINY}/train.npz"}}
threads: 1
steps:
- distill: {{student: "small.py:small", epochs: 60, patience: 0, checkpoint_s: 0.05}}
"""
STUDENT = """
import os
import time
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0
        self.layers = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 10))

    def forward(self, features):
        self.steps += self.training
        if self.steps == 400 and "STOPS" in os.environ:
            time.sleep(600)
        return self.layers(features)

def small():
    return Small()
"""
# The first step of the recipe, as a search runs it.
RUN = """
import sys
from pathlib import Path
from mlpack.api.flags import read_recipe
from mlpack.api.prepare import prepare
from mlpack.core.reporter import Silent
from mlpack.engine.run import run
from mlpack.engine.validate import options_of

recipe = read_recipe(Path("recipe.yaml"), {}, {})
prepared = prepare(recipe, Path(sys.argv[1]), Silent())
done = run(options_of(recipe.steps[0]), prepared.baseline, prepared.context)
print(done.model.digests()["weights.safetensors"], done.report.metrics["steps"])
"""


@pytest.fixture
def trains(place):
    (place / "recipe.yaml").write_text(RECIPE)
    (place / "small.py").write_text(STUDENT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}

    def start(cache, **told):
        return subprocess.Popen(
            [sys.executable, "-c", RUN, cache], cwd=place,
            env={**kept, **told, "MLPACK_CACHE": str(place / cache)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    return start


def checkpoints(cache):
    return list((cache / "unfinished").glob("*/training.pt"))


@pytest.mark.slow
def test_what_was_killed_goes_on_and_ends_with_the_same_weights(trains, place):
    # It waits in its 400th step, however long this process is kept from looking.
    killed = trains("one", STOPS="yes")
    while killed.poll() is None and not checkpoints(place / "one"):
        time.sleep(0.01)
    assert killed.poll() is None, killed.communicate()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert checkpoints(place / "one"), "a kill keeps it"
    weights = []
    for cache in ("one", "two"):
        ended = trains(cache)
        out, err = ended.communicate()
        assert ended.returncode == 0, err
        weights.append(out)
        assert not list((place / cache / "unfinished").iterdir()), "what is finished needs no checkpoint"
    assert weights[0] == weights[1]
    assert weights[0].endswith(" 1680\n")
