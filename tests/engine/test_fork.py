"""Children that are forked are like new programs, and end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlpack.core.threads import usable_threads
from mlpack.engine import fork, process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux only")


def quiet(text, done=None, total=None):
    """Says nothing."""


def surroundings(**options):
    return process.call("children:surroundings", {}, quiet, **options).value


@pytest.fixture(autouse=True)
def no_servers():
    fork.end_servers()


def test_forks_come_from_one_process_and_have_what_it_imported():
    one, two = (surroundings(imports=("torch",)) for _ in range(2))
    plain = surroundings()
    assert one["torch"]
    assert two["torch"]
    assert not plain["torch"]
    assert fork._servers["torch",].fit
    assert len(fork._servers) == 2
    assert one["parent"] != two["parent"]


def test_a_fork_has_its_own_environment_folder_threads_and_randomness(monkeypatch, tmp_path):
    first = surroundings()
    monkeypatch.setenv("MLPACK_TEST_WORD", "here")
    monkeypatch.chdir(tmp_path)
    second = surroundings()
    assert "MLPACK_TEST_WORD" not in first["environment"]
    assert second["environment"]["MLPACK_TEST_WORD"] == "here"
    assert second["environment"].get("OPENBLAS_NUM_THREADS") == os.environ.get("OPENBLAS_NUM_THREADS")
    assert Path(second["folder"]) == tmp_path
    assert second["temporary"] == second["environment"]["TMPDIR"] != first["temporary"]
    assert not set(first["drawn"]) & set(second["drawn"])
    assert set(second["blas_threads"]) == {usable_threads()}


def test_what_starts_threads_as_it_is_imported_is_not_forked(tmp_path, monkeypatch):
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert process.call("children:answer", {"number": 1}, quiet, imports=("starts_a_thread",)).value == {"number": 2}
    assert not fork._servers["starts_a_thread",].fit


def test_a_module_that_cannot_be_imported_is_left_to_who_needs_it():
    assert process.call("children:answer", {"number": 1}, quiet, imports=("no_such_module",)).value == {"number": 2}


def test_a_server_that_has_ended_is_started_again():
    first = surroundings()
    server = fork._servers[()]
    server._process.kill()
    server._process.wait()
    assert surroundings()["parent"] != first["parent"]
    assert fork._servers[()] is not server


def test_nothing_is_left_when_the_parent_is_killed(tmp_path):
    code = (
        "from mlpack.engine import process; process.call('children:waits', {}, lambda *told: print(told, flush=True))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}) as parent:
        family = wait_for_family(parent.pid, 3)
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=300)
    assert alive == []


def wait_for_family(pid, count):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        family = psutil.Process(pid).children(recursive=True)
        if len(family) >= count:
            return family
        time.sleep(0.1)
    raise AssertionError(f"{pid} has {len(family)} descendants")
