"""`build --build-host`: a real ssh server on this machine is the other one; what comes back, and what is refused."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlpack
from mlpack.errors import MachineError, MissingHardware, MissingLibrary, StageFailed, UsageError
from mlpack.store.verify import verify

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
COMMAND = str(Path(sys.executable).with_name("mlpack"))

pytestmark = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="no openssh on this machine")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An ssh server on loopback; gives the folder with the client's configuration, in which it is called `builder`."""
    place = tmp_path_factory.mktemp("ssh")
    place.chmod(0o700)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
        subprocess.run(words, check=True)
    shutil.copyfile(place / "user.pub", place / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (place / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv MLPACK_CACHE={place}/cache TMPDIR={place}/work\n"
    )
    (place / "work").mkdir()
    (place / "known").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    (place / "client").write_text(
        f"Host builder\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {place}/user\n"
        f"IdentitiesOnly yes\nUserKnownHostsFile {place}/known\nStrictHostKeyChecking yes\n"
    )
    if os.geteuid() == 0:
        # Where its unprivileged part lives; the package's start script makes it, and nobody runs that here.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen([SSHD, "-D", "-e", "-f", str(place / "sshd_config")], stderr=log) as running,
    ):
        _wait_for(port, running, place / "log")
        yield place
        running.terminate()


def _wait_for(port, running, log):
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def builder(server, monkeypatch):
    monkeypatch.setenv("MLPACK_SSH", f"ssh -F {server}/client")
    return server


@pytest.mark.slow
def test_it_is_built_there_and_comes_back_as_a_new_version(folder, builder):
    parent = mlpack.show("tiny@1").artifact
    done = mlpack.build("tiny", build_host="builder", build_command=COMMAND)
    this = done.stored.artifact
    assert (this.name, this.version, done.unchanged) == ("tiny", 2, False)
    assert done.stored.path == folder / "artifacts" / "tiny" / "2"
    assert this.parent.model_dump() == {"name": "tiny", "version": 1, "digest": parent.digest}
    assert (this.target["name"], this.target["here"]) == ("server", True)
    assert all(record.baseline and record.optimized and record.speedup for record in this.latency)
    assert (this.accuracy.part, this.accuracy.samples) == (parent.accuracy.part, parent.accuracy.samples)
    assert (this.source, this.recipe["data"]["evaluation"]) == (parent.source, "eval.npz"), "names hold here as well"
    verify(done.stored.path)
    assert list((builder / "work").iterdir()) == [], "nothing is left there"


@pytest.mark.slow
def test_what_lies_outside_of_the_folder_goes_along_and_errors_come_back(folder, builder, place, cli):
    outside = place / "outside"
    outside.mkdir()
    for name in ("model.py", "weights.safetensors", "eval.npz"):
        shutil.move(folder / name, outside / name)
    given = ["--model", f"{outside}/model.py:model", "--data", str(outside / "eval.npz")]
    words = ["build", "tiny@1", "--build-host", "builder", "--build-command", COMMAND, *given, "--json"]
    ended = cli(*words)
    assert ended.code == 0, ended.err
    assert ended.document["parent"]["version"] == 1
    assert ended.document["accuracy"]["verdict"] == "pass"

    ended = cli(*words, "--backend", "onnxruntim")
    assert ended.code == 2
    assert ended.document["error"]["message"].startswith("builder: unknown backend 'onnxruntim'")
    assert ended.document["error"]["hint"] == "did you mean 'onnxruntime'?"


def test_the_target_of_another_machine_is_refused_there(folder, builder):
    with pytest.raises(MissingHardware, match=r"builder: tiny@1 is to be built on NVIDIA A100") as caught:
        mlpack.build("tiny", target="a100", build_host="builder", build_command=COMMAND)
    assert caught.value.hint


def test_who_cannot_be_reached_or_has_no_mlpack_is_said(folder, builder, monkeypatch):
    with pytest.raises(MissingLibrary, match="there is no mlpack-of-tomorrow on builder"):
        mlpack.build("tiny", build_host="builder", build_command="mlpack-of-tomorrow")
    with pytest.raises(StageFailed, match="builder gave no result: tar: "):
        mlpack.build("tiny", build_host="builder", build_command="true")
    with pytest.raises(UsageError, match="'-oProxyCommand=touch x' is no machine"):
        mlpack.build("tiny", build_host="-oProxyCommand=touch x")
    with pytest.raises(MachineError, match="cannot be reached: ssh: connect to host") as caught:
        mlpack.build("tiny", build_host="ssh://127.0.0.1:1")
    assert caught.value.hint.startswith("first make this work: ssh ")
    monkeypatch.setenv("MLPACK_SSH", "no-such-client")
    with pytest.raises(MissingLibrary, match="there is no no-such-client on this machine"):
        mlpack.build("tiny", build_host="builder")
    assert [each.name for each in (folder / "artifacts" / "tiny").iterdir() if each.name.isdigit()] == ["1"]


def test_too_much_to_send_is_refused_before_anything_is_sent(folder, builder, monkeypatch):
    monkeypatch.setattr("mlpack.api.build_host._MOST_BYTES", 10_000)
    with pytest.raises(UsageError, match="more than 0 GB would be sent") as caught:
        mlpack.build("tiny", build_host="builder", build_command=COMMAND)
    assert "a folder of its own" in caught.value.hint
