"""An artifact made by hand, and a reporter that remembers."""

from __future__ import annotations

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
