"""A folder to work in that nothing else shares, and the command line in this process."""

from __future__ import annotations

import atexit
import json
import os
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest

# A machine that is lent out to others stalls for seconds, and a run of the suite is not the place to meet a new
# counterexample: HYPOTHESIS_PROFILE=explore draws other ones, as long as it takes.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile("explore", hypothesis.settings.get_profile("steady"), derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# No test finds what another run of the tests left in the user's cache.
_CACHE = tempfile.TemporaryDirectory(prefix="mlpack-tests-", ignore_cleanup_errors=True)
atexit.register(_CACHE.cleanup)
os.environ["MLPACK_CACHE"] = _CACHE.name

# A job that a shell starts in the background ignores SIGINT, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: short ones at the end keep all workers busy to the last minute."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


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
