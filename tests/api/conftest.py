"""An artifact made by hand, a reporter that remembers, and what a factory's own model answers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))


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
