"""A folder to work in that nothing else shares, and the command line in this process."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

# A job that a shell starts in the background ignores SIGINT, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
