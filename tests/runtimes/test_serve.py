"""`mlpack serve`: an artifact behind its real server, until it is told to stop."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import psutil
import pytest
from raw_artifacts import make_raw
from tiny_artifacts import make

from mlpack import serve
from mlpack.errors import MachineError, UsageError
from mlpack.runtimes.server_process import free_ports

MLPACK = [sys.executable, "-c", "from mlpack.cli.app import main; main()"]


def asked(line):
    """The answer to a pasted line."""
    done = subprocess.run(shlex.split(line), capture_output=True, check=True, timeout=300)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("number", "who", "code", "said"),
    [
        (signal.SIGTERM, "mlpack", 143, "stopping\n"),
        (signal.SIGINT, "mlpack", 130, "stopping\n"),
        (signal.SIGKILL, "server", 4, "error: the server ended by itself (SIGKILL)\nhint: cat "),
    ],
    ids=["SIGTERM", "Ctrl-C", "its server is killed"],
)
def test_it_serves_until_it_is_stopped_and_leaves_nothing(place, number, who, code, said):
    stored = make(place / "artifacts")
    words = [*MLPACK, "serve", "tiny-mlp", "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place) as process:
        lines = []
        while lines[-1:] != ["}\n"]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        told = json.loads("".join(lines))
        server = psutil.Process(told["pid"])
        answer = asked(told["curl"])
        (process if who == "mlpack" else server).send_signal(number)
        out, err = process.communicate(timeout=300)
    with np.load(stored.path / "golden" / "outputs.npz") as outputs:
        assert answer["outputs"][0]["data"] == pytest.approx(outputs["logits"][0].tolist(), abs=1e-4)
    assert told["urls"]["http"].startswith("http://127.0.0.1:")
    # The one document was written when the server was ready.
    assert (process.returncode, out) == (code, "")
    assert err.startswith(said)
    assert not server.is_running()
    assert list((place / "cache" / "serving").iterdir()) == []


@pytest.mark.usefixtures("nothing_left")
def test_in_python_it_is_a_context(place):
    make_raw(place / "artifacts", "reviews")
    with serve(port=0) as serving:
        body = json.dumps({"text": "good film"}).encode()
        request = urllib.request.Request(f"{serving.url}/predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as response:
            (told,) = json.load(response)["predictions"]
        assert set(told) == {"label", "score"}
        lines = [part for part in serving.summary() if isinstance(part, str)]
        assert lines[0] == f"tiny-reviews@1 on {serving.url}"


def test_a_port_that_is_taken_is_exit_3(place, cli):
    make(place / "artifacts")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = cli("serve", "--port", str(port), "--json")
        assert (done.code, done.document["error"]["kind"]) == (3, "MachineError")
        assert f"port {port} cannot be used" in done.document["error"]["message"]
        assert done.document["error"]["hint"] == "--port 0 takes a free one"
        # Triton takes three in a row.
        with pytest.raises(MachineError, match="3 in a row are needed"):
            free_ports(("http", "grpc", "metrics"), port - 1)
    assert list((place / "cache" / "serving").iterdir()) == []


def test_what_cannot_be_served_is_refused(place):
    make(place / "artifacts", status="candidate")
    with pytest.raises(UsageError, match="is a candidate"), serve(port=0):
        pass
    with pytest.raises(UsageError, match="unknown runtime 'tritn'"), serve(runtime="tritn", force=True):
        pass
    with pytest.raises(UsageError, match="ports are 1 to 65535"), serve(port=70000):
        pass
    serving = place / "cache" / "serving"
    assert not serving.exists() or list(serving.iterdir()) == []
