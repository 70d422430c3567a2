"""`mlpack check`: the packaged server is started for real, asked, compared and stopped; what is wrong is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import psutil
import pytest
from serving import alter_outputs, free_port, replace

from mlpack import check
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed, UsageError
from mlpack.runtimes import server_process
from mlpack.runtimes.server_process import free_ports, running

DEPENDENT = {"accuracy__batch_dependent": True, "accuracy__batch": 4}
OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino"}
A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8"}


@pytest.fixture(autouse=True)
def _short(place, monkeypatch):
    """A timing that is long enough to be one."""
    monkeypatch.setattr("mlpack.api.check._SECONDS", 0.3)
    monkeypatch.setattr("mlpack.api.check._WARM_UP_S", 0.1)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("kind", "changes", "doors"),
    [
        ("mlp", {}, ["http 6×1", "http 6×1", "http 1×6", "http 1×6"]),
        ("mlp", {"batch": 3}, ["http 2×3", "http 2×3"]),
        ("text", DEPENDENT, ["http 6×1"]),
        ("reviews", {}, ["http 6×1", "http 1×6", *(["raw 6×1"] * 3)]),
        ("photos", OPENVINO, [*(["http 6×1"] * 2), *(["http 1×6"] * 2), *(["raw 6×1"] * 3)]),
    ],
    ids=["merged", "static", "batch dependent", "texts", "images on openvino"],
)
def test_a_good_package_answers_as_recorded(packaged, cli, kind, changes, doors):
    folder = packaged(kind, changes=changes)
    before = sorted(path for path in folder.rglob("*"))
    done = cli("check", str(folder), "--json")
    assert done.code == 0, done.err
    told = done.document
    assert (told["verdict"], told["problems"], told["runtime"]) == ("same", [], "fastapi")
    assert (told["name"], told["server"]) == (f"tiny-{kind}", "mlpack-fastapi 1")
    seen = [
        f"{'raw' if each['sent'] == 'raw samples' else each['protocol']} {each['requests']}×{each['rows']}"
        for each in told["replays"]
        for _ in each["outputs"]
    ]
    assert seen == doors
    for replay in told["replays"]:
        assert replay["failure"] is None
        for output in replay["outputs"]:
            if output["absolute"] is not None:
                assert output["absolute"] <= output["allowed"]["absolute"] + output["allowed"]["relative"] * 100
    assert told["start_s"] > 0
    assert (told["load"]["clients"], told["load"]["errors"], told["load"]["unit"]) == (1, {}, "ms")
    assert told["load"]["answered"] > 0
    assert sorted(path for path in folder.rglob("*")) == before, "a check leaves a package as it is"


def test_what_people_read_fits_eighty_columns(packaged, cli):
    done = cli("check", str(packaged("reviews")))
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("tiny-reviews@1 for fastapi: every answer is as recorded\n")
    assert max(map(len, done.err.splitlines())) <= 80
    for part in ("raw 6×1", "logits", "float32[1, 3]", "0.0001 + 1e-05·|x|", "BYTES[1]", "one client over HTTP"):
        assert part in done.err


def test_another_answer_is_exit_5_with_its_output_and_difference(packaged, cli):
    folder = packaged()
    alter_outputs(folder, "score", 4, 0.01)
    done = cli("check", str(folder), "--json")
    assert done.code == 5
    told = done.document
    assert (told["verdict"], told["load"], told["error"]["kind"]) == ("different", None, "GateFailed")
    logits, score = told["replays"][0]["outputs"]
    assert (logits["name"], logits["problems"]) == ("logits", [])
    (problem,) = score["problems"]
    assert problem["request"] == 5
    assert problem["said"].startswith("differs: ")
    assert score["absolute"] == pytest.approx(0.01, abs=1e-4)
    assert "http 6×1, request 5: output 'score' differs: " in told["error"]["message"]
    shown = cli("check", str(folder))
    assert shown.code == 5
    assert "answers differ from the recorded ones" in shown.err
    assert "0.01" in shown.err


def test_a_raw_answer_that_differs_is_found(packaged, cli):
    folder = packaged("pairs")
    rows = [json.loads(line) for line in (folder / "golden" / "answers.jsonl").read_text().splitlines()]
    rows[2]["note"] += "!"
    replace(folder, "golden/answers.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    done = cli("check", str(folder), "--json")
    assert done.code == 5
    assert "raw 6×1, request 3: output 'note' is ['class " in done.document["error"]["message"]


# A server that is ready and gives no good answer, as the start of the package's own.
ODD = """
import http.server, json, os, sys

class Odd(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({"name": "odd", "version": "0"})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        WHAT

    def reply(self, answer):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Odd).serve_forever()
"""
SCORE = '{"name": "score", "datatype": "FP32", "shape": [1], "data": [0.0]}'
LOGITS = '{"name": "logits", "datatype": "%s", "shape": %s, "data": %s}'


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (SCORE, "request 1: output 'logits' is missing"),
        (f"{LOGITS % ('FP32', [0], [])}, {SCORE}", "request 1: output 'logits' is empty"),
        (f"{LOGITS % ('FP32', [1, 3], [])}, {SCORE}", "request 1: output 'logits' is empty"),
        (f"{LOGITS % ('FP64', [1, 3], [0, 0, 0])}, {SCORE}", "is float64[1, 3], expected float32[1, 3]"),
        (f"{LOGITS % ('FP32', [3], [0, 0, 0])}, {SCORE}", "is float32[3], expected float32[1, 3]"),
        ("7", "no usable answer: http://127.0.0.1:"),
    ],
    ids=["missing", "empty", "a shape without values", "another dtype", "another shape", "no protocol"],
)
def test_no_good_answer_is_a_difference(packaged, outputs, said):
    folder = packaged()
    replace(folder, "server/__main__.py", ODD.replace("WHAT", f'self.reply({{"outputs": [{outputs}]}})'))
    done = check(folder)
    assert (done.verdict, done.server, done.load) == ("different", "odd 0", None)
    assert done.problems[0].startswith("http")
    assert said in done.problems[0]


@pytest.mark.parametrize("change", ["altered", "missing", "extra"])
def test_a_tampered_package_is_exit_5_and_nothing_is_started(packaged, cli, monkeypatch, change):
    folder = packaged()
    monkeypatch.setattr(server_process.subprocess, "Popen", None)
    path = folder / ("server/more.py" if change == "extra" else "model/model.onnx.data")
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!" if path.exists() else b"")
    done = cli("check", str(folder), "--json")
    assert (done.code, done.document["error"]["kind"]) == (5, "Tampered")
    assert path.relative_to(folder).as_posix() in done.document["error"]["message"]


def test_a_server_that_crashes_at_its_start_is_told_with_its_log(packaged, cli):
    folder = packaged()
    replace(folder, "server/__main__.py", "raise RuntimeError('no luck today')\n")
    done = cli("check", str(folder), "--json")
    error = done.document["error"]
    assert (done.code, error["kind"]) == (4, "StageFailed")
    assert error["message"].startswith("the server ended before it was ready (exit status 1): ")
    assert "RuntimeError: no luck today" in error["message"]
    log = Path(error["hint"].removeprefix("cat "))
    assert "Traceback" in log.read_text()


@pytest.mark.usefixtures("nothing_left")
def test_a_server_that_ends_while_it_is_asked_is_told(packaged):
    folder = packaged()
    replace(folder, "server/__main__.py", ODD.replace("WHAT", "print('error: enough', file=sys.stderr); os._exit(7)"))
    with pytest.raises(StageFailed, match=r"ended while it was asked \(exit status 7\): error: enough"):
        check(folder)


def test_what_is_no_package_is_refused(packaged, place, cli):
    folder = packaged()
    assert cli("check", str(place / "nothing")).code == 2
    done = cli("check", str(place / "store" / "tiny-mlp" / "1"), "--json")
    assert (done.code, "is an artifact, not a package" in done.document["error"]["message"]) == (2, True)
    record = json.loads((folder / "mlpack-package.json").read_text())
    (folder / "mlpack-package.json").write_text(json.dumps({**record, "schema": 2}))
    with pytest.raises(UsageError, match="schema 2, and this mlpack reads 1"):
        check(folder)


def test_a_python_without_the_packages_requirements_is_exit_3(packaged, place, cli):
    folder = packaged()
    venv.create(place / "bare", with_pip=False)
    done = cli("check", str(folder), "--python", str(place / "bare" / "bin" / "python"), "--json")
    assert (done.code, done.document["error"]["kind"]) == (3, "MissingLibrary")
    assert "lacks onnxruntime, numpy, fastapi" in done.document["error"]["message"]
    assert f"pip install -r {folder / 'requirements.txt'}" in done.document["error"]["hint"]
    with pytest.raises(UsageError, match="no Python that can be run"):
        check(folder, python=place / "nothing")
    with pytest.raises(UsageError, match="brings its server along"):
        check(folder, server=sys.executable)


def test_other_versions_than_the_pinned_ones_are_told(packaged):
    folder = packaged()
    text = (folder / "requirements.txt").read_text()
    pin = next(line for line in text.splitlines() if line.startswith("uvicorn=="))
    replace(folder, "requirements.txt", text.replace(pin, "uvicorn==0.0.1"))
    done = check(folder)
    assert done.verdict == "same"
    assert done.notes == (f"other versions than the package pins: uvicorn {pin[9:]} (pinned: 0.0.1)",)


def test_a_package_that_keeps_answers_is_told_to_be_timed_with_them(packaged):
    done = check(packaged(cache="memory"))
    assert done.verdict == "same"
    assert "answers are kept (memory): times are mostly those of kept answers" in done.notes


def test_a_token_of_the_environment_is_the_servers_and_goes_along(packaged, cli, monkeypatch):
    folder = packaged(access="token")
    monkeypatch.delenv("AUTH_TOKEN", raising=False)
    done = cli("check", str(folder), "--json")
    assert (done.code, "set AUTH_TOKEN" in done.document["error"]["message"]) == (4, True)
    monkeypatch.setenv("AUTH_TOKEN", "a-token-of-sixteen-letters")
    monkeypatch.setattr(
        "mlpack.runtimes.templates.client.TOKEN", {"Authorization": "Bearer a-token-of-sixteen-letters"}
    )
    done = cli("check", str(folder), "--json")
    assert (done.code, done.document["load"]["errors"]) == (0, {})


def test_without_a_triton_it_says_how_to_get_one(packaged, place, cli, monkeypatch):
    folder = packaged(runtime="triton")
    monkeypatch.setenv("PATH", str(place))
    done = cli("check", str(folder), "--json")
    error = done.document["error"]
    assert (done.code, error["kind"]) == (3, "MissingLibrary")
    assert "triton/bin/pip install nvidia-pytriton==0.7.0 numpy==1.26.4 onnxruntime, then --python" in error["hint"]
    with pytest.raises(MissingLibrary) as missing:
        check(packaged("photos", runtime="triton", changes=OPENVINO))
    words = missing.value.hint.partition(", then")[0].split()
    assert [word.partition("==")[0] for word in words[words.index("install") + 1 :]] == [
        "nvidia-pytriton", "openvino", "numpy", "pyyaml", "pillow",
    ]  # fmt: skip
    monkeypatch.setenv("MLPACK_TRITONSERVER", str(place))
    with pytest.raises(UsageError, match="is no program"):
        check(folder)


def test_a_package_for_a_card_needs_one(packaged, monkeypatch):
    monkeypatch.setattr("mlpack.runtimes.triton_server.nvidia_devices", tuple)
    with pytest.raises(MissingHardware, match="for an NVIDIA card"):
        check(packaged(runtime="triton", changes=A100))


STUBBORN = """
import http.server, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print("child", child.pid, flush=True)

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


def test_a_server_that_does_not_stop_is_killed_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(server_process, "_STOP_SECONDS", 0.2)
    ports = free_ports(("http",), None)
    command = [sys.executable, "-c", STUBBORN, str(ports["http"])]
    with running(command, tmp_path, os.environ, ports, tmp_path / "log") as server:
        child = int((tmp_path / "log").read_text().split()[1])
        assert psutil.pid_exists(child)
    assert server.process.returncode == -signal.SIGKILL
    gone = [psutil.Process(child)] if psutil.pid_exists(child) else []
    assert psutil.wait_procs(gone, timeout=60)[1] == []


def test_a_server_that_never_gets_ready_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(server_process, "_READY_SECONDS", 0.3)
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with (
        pytest.raises(StageFailed, match="was not ready after"),
        running(command, tmp_path, os.environ, free_ports(("http",), None), tmp_path / "log"),
    ):
        pass


WITH_A_SERVER = """
import os, pathlib, sys
from mlpack.runtimes.server_process import free_ports, running
folder = pathlib.Path(sys.argv[1])
ports = free_ports(("http",), None)
command = [sys.executable, "-c", sys.argv[2], str(ports["http"])]
with running(command, folder, os.environ, ports, folder / "log") as server:
    print(server.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_mlpack_leaves_no_server(tmp_path):
    words = [sys.executable, "-c", WITH_A_SERVER, str(tmp_path), STUBBORN.replace("signal.SIG_IGN", "signal.SIG_DFL")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        server = psutil.Process(int(parent.stdout.readline()))
        child = psutil.Process(int((tmp_path / "log").read_text().split()[1]))
        parent.kill()
    assert psutil.wait_procs([server], timeout=60)[1] == []
    child.kill()


def test_a_port_that_is_free_is_taken_as_it_is():
    port = free_port()
    assert free_ports(("http",), port) == {"http": port}
    assert len(set(free_ports(("http", "grpc", "metrics"), None).values())) == 3
