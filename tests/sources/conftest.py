"""Tiny real modules in every form that a user may hand in, and a Job that a stage can run with."""

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tiny_net import Net

from mlpack.core.recipe import SourceSpec
from mlpack.core.target import Target
from mlpack.stages.load import Load

HERE = Target(
    name="cpu",
    title="here",
    kind="cpu",
    here=True,
    numerics=("fp32",),
    rules="vnni",
    source="test",
    date="2026-11-22",
)

NET = """
import torch
from torch import nn
from layers import Scale

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.scale = Scale()
        self.last = nn.Linear(8, 3)

    def forward(self, features):
        return self.last(self.scale(torch.relu(self.first(features))))

def network():
    torch.manual_seed(0)
    return Net()
"""
LAYERS = """
from torch import nn

class Scale(nn.Module):
    def forward(self, x):
        return x * 2
"""


@dataclass
class OneJob:
    """The Job of one run of one stage, without an engine."""

    out: Path
    data: object = None
    target: Target = HERE
    threads: int = 1
    seed: int = 0
    baseline: None = None
    said: list = field(default_factory=list)

    def say(self, text, done=None, total=None):
        self.said.append(text if total is None else f"{text} {done}/{total}")

    def dataset(self, part):
        return self.data if part == "choosing" else None

    def backend(self, name):
        raise AssertionError(name)


@pytest.fixture
def net():
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture
def code(tmp_path):
    """A folder with a factory that imports a module beside it."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "model.py").write_text(NET)
    (folder / "layers.py").write_text(LAYERS)
    return folder / "model.py"


@pytest.fixture
def load(tmp_path):
    """Run the load stage: `load("model.pt2", inputs=(...,))` gives (model, job)."""

    def run(model, data=None, data_inputs=None, **options):
        out = Path(tempfile.mkdtemp(prefix="out", dir=tmp_path))
        job = OneJob(out, data)
        found = data.inputs if data is not None and data_inputs is None else data_inputs or ()
        stage = Load.of(SourceSpec(model=str(model), **options), found)
        return stage.run(None, job).model, job

    return run


@pytest.fixture(autouse=True)
def clean_imports():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mlpack_user_") or name in {"layers", "model"}:
            del sys.modules[name]
