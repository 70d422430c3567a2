"""Artifacts made by hand and for another machine, a reporter that remembers, and what a factory's own model answers."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))


TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
QUICK = ("profile_latency.launches=2", "profile_latency.seconds=0.05", "profile_latency.components=false")


@pytest.fixture(scope="module")
def made_elsewhere(tmp_path_factory):
    """A folder with model, data, and an int8 artifact for a target file that has this machine's instruction sets."""
    import yaml

    import mlpack
    from mlpack.core.targets import load_target

    place = tmp_path_factory.mktemp("made")
    for name in ("model.py", "weights.safetensors", "eval.npz"):
        shutil.copyfile(TINY / name, place / name)
    here = load_target("cpu")
    told = {"kind": "cpu", "isa": list(here.isa), "numerics": list(here.numerics), "rules": here.rules}
    (place / "server.yaml").write_text(yaml.safe_dump(told))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MLPACK_CACHE", str(place / "cache"))
        done = mlpack.optimize(
            "model.py:model",
            data="eval.npz",
            numerics="int8",
            target="server.yaml",
            max_drop="3%",
            backend="onnxruntime",
            name="tiny",
            settings=QUICK,
        )
    assert not done.stored.artifact.target["here"]
    assert done.stored.artifact.latency[0].reason
    return place


@pytest.fixture
def folder(made_elsewhere, place, monkeypatch):
    """A copy of that folder to work in; what was scored is kept."""
    copy = place / "here"
    shutil.copytree(made_elsewhere, copy, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLPACK_CACHE", str(made_elsewhere / "cache"))
    return copy


@pytest.fixture
def store(place):
    from tiny_artifacts import make

    make(place / "artifacts")
    return place / "artifacts"


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, text, done=None, total=None):
        pass

    def stage_done(self, line):
        self.lines.append(line)

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def answers_of(tmp_path, monkeypatch):
    """Writes a factory `model` of [n, 16]; its file, rows whose first feature is `largest`, and the logits for them."""
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))

    def answers(code, *, rows, largest):
        import numpy as np
        import torch

        path = tmp_path / "net.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location("net", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        x = np.random.default_rng(0).standard_normal((rows, 16)).astype(np.float32)
        x[:, 0] *= largest
        with torch.inference_mode():
            return path, x, module.model().eval()(torch.from_numpy(x))

    return answers
