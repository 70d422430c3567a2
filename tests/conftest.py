"""A folder to work in that nothing else shares, and the command line in this process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class Ended:
    """How a command line ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder: empty, with a cache of its own and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MLPACK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def cli(place, capsys):
    """`cli("show", "net")`: the command line, without a new process."""
    from mlpack.cli.app import run

    def call(*words: str) -> Ended:
        capsys.readouterr()
        code = run(list(words))
        return Ended(code, *capsys.readouterr())

    return call
