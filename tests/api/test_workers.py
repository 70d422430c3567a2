"""Candidates made and scored side by side, here and on a Ray cluster, are what one after the other gives."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import mlpack
from mlpack.errors import DataError, MissingLibrary, UsageError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = ROOT / "sample_models" / "tiny-mlp"
CONV = ROOT / "sample_models" / "digits-resnet"
# Other targets are not timed, so that nothing that differs from run to run decides.
WANTED = {"data": TINY / "eval.npz", "target": "a100", "max_drop": "5%"}


def tried(done):
    artifact = done.stored.artifact
    return [(each.label, each.accuracy, each.size_bytes, each.why) for each in artifact.candidates]


def optimized(folder, monkeypatch, **how):
    """From nothing: a cache and a store of its own."""
    monkeypatch.setenv("MLPACK_CACHE", str(folder / "cache"))
    return mlpack.optimize(f"{TINY}/model.py:model", **WANTED, store=folder / "store", **how)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return optimized(tmp_path_factory.mktemp("alone"), patch, workers=1)


def test_side_by_side_gives_the_same(alone, tmp_path, monkeypatch, heard):
    done = optimized(tmp_path, monkeypatch, workers=3, reporter=heard)
    assert tried(done) == tried(alone)
    assert done.stored.artifact.model.digest == alone.stored.artifact.model.digest
    assert len([line for line in heard.lines if "choosing rows" in line]) == len(done.stored.artifact.candidates) + 1


def test_an_error_of_one_ends_all_and_is_told_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    code = "def score(outputs, labels):\n    raise RuntimeError('no such day')\n"
    (tmp_path / "metric.py").write_text(code)
    with pytest.raises(DataError, match="no such day"):
        mlpack.optimize(
            f"{TINY}/model.py:model", **WANTED, store=tmp_path / "store", metric=f"{tmp_path}/metric.py:score",
            workers=2,
        )  # fmt: skip
    assert begun(tmp_path) == []


def test_workers_here_and_of_a_cluster_exclude_one_another(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="--workers are those of this machine"):
        optimized(tmp_path, monkeypatch, workers=2, ray="127.0.0.1:1")


def begun(folder):
    """Stages that are being worked on."""
    return [path for path in (folder / "cache" / "stages").glob("*/.*") if path.is_dir()]


def test_ctrl_c_ends_all_of_them_at_once(tmp_path):
    code, data = CONV / "model.py", CONV / "eval.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", "from mlpack.cli.app import main; main()", "optimize", f"{code}:model", "--data", data,
         "--workers", "2", "--store", tmp_path / "store"],
        env={**os.environ, "MLPACK_CACHE": str(tmp_path / "cache")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and len(begun(tmp_path)) < 2:
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(begun(tmp_path)) == 2
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert begun(tmp_path) == []
    _, alive = psutil.wait_procs(children, timeout=60)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


METRIC = """
import os
from pathlib import Path

import numpy as np


def right(outputs, labels):
    with Path({seen!r}).open("a") as seen:
        seen.write(f"{{os.environ.get('MARK', 'here')}}\\n")
    return (next(iter(outputs.values())).argmax(1) == labels).astype(np.float64)
"""

RAY = """
set -e
export MARK=cluster
ray start --head --node-ip-address=127.0.0.1 --port={port} --num-cpus=4 --include-dashboard=false \\
  --disable-usage-stats --temp-dir={temporary} > ray.txt 2>&1
unset MARK
trap 'ray stop --force > /dev/null 2>&1' EXIT
{python} -c 'from mlpack.cli.app import main; main()' optimize {model} --data {data} --target a100 --max-drop 5% \\
  --metric {metric}:right --threads 2 --store store --ray 127.0.0.1:{port}
"""


def isolated():
    """What gives a command a network of its own, where this user may have one: Ray listens on all addresses."""
    words = ["unshare", "-rn"]
    with_loopback = [*words, "sh", "-c", "ip link set lo up"]
    may = shutil.which("ip") and subprocess.run(with_loopback, capture_output=True, check=False).returncode == 0
    return [*words, "sh", "-c", 'ip link set lo up; exec "$@"', "sh"] if may else []


def test_a_cluster_gives_the_same(alone, tmp_path):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "metric.py").write_text(METRIC.format(seen=str(tmp_path / "seen.txt")))
    # The path of a socket has room for a hundred characters.
    temporary = Path("/tmp") / f"ray-{os.getpid()}"  # noqa: S108 - named for this process, removed below
    script = RAY.format(
        port=port, temporary=temporary, python=sys.executable, model=f"{TINY}/model.py:model", data=TINY / "eval.npz",
        metric=tmp_path / "metric.py",
    )  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        done = subprocess.run(
            [*isolated(), "bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "PATH": path, "MLPACK_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = mlpack.show("tiny-mlp", store=tmp_path / "store")
    assert stored.artifact.model.digest == alone.stored.artifact.model.digest
    assert "cluster" in (tmp_path / "seen.txt").read_text().split(), "candidates were scored there"
    assert not list((tmp_path / "cache").glob(".ray*"))


def test_an_address_where_no_cluster_is_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="no Ray cluster answers at"):
        optimized(tmp_path, monkeypatch, ray="127.0.0.1:1")


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingLibrary, match="package ray"):
        optimized(tmp_path, monkeypatch, ray="auto")
