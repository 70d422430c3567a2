"""A store with artifacts, and ways to run a command line: in this process, or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The sample artifact is the store's; test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

MLPACK = [sys.executable, "-c", "from mlpack.cli.app import main; main()"]


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MLPACK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def store(place):
    from sample_artifact import make_artifact, make_draft

    from mlpack.store.publish import publish

    draft = make_draft(place / "draft")
    publish(place / "artifacts", draft, make_artifact())
    publish(place / "artifacts", draft, make_artifact(numerics="bf16", keys=("k1", "k9"), limit="2%"))
    publish(place / "artifacts", draft, make_artifact(status="candidate", verdict="inconclusive"))
    return place / "artifacts"


@pytest.fixture
def cli(place, capsys):
    from mlpack.cli.app import run

    def call(*words: str) -> Ended:
        capsys.readouterr()
        code = run(list(words))
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture
def process(place):
    def call(*words: str, **changes: Any) -> Ended:
        done = subprocess.run([*MLPACK, *words], capture_output=True, text=True, timeout=60, check=False, **changes)
        return Ended(done.returncode, done.stdout, done.stderr)

    return call
