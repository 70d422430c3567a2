"""A store with artifacts, and the command line as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# The sample artifact is the store's; test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

MLPACK = [sys.executable, "-c", "from mlpack.cli.app import main; main()"]


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
def process(place):
    def call(*words: str, **changes: Any) -> Any:
        done = subprocess.run([*MLPACK, *words], capture_output=True, text=True, timeout=300, check=False, **changes)
        document = json.loads(done.stdout) if "--json" in words else None
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, document=document)

    return call
