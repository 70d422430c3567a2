"""From one version to the next and back in a real Triton under load: no request fails."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest
from other_servers import triton_environment, triton_home, triton_options
from tiny_artifacts import make, samples

import mlpack
from mlpack.runtimes.package_files import TEMPLATES
from mlpack.runtimes.server_process import HOST, free_ports, running

pytestmark = pytest.mark.slow
MODES = {
    "poll": ("--model-control-mode=poll", "--repository-poll-secs=1"),
    "explicit": ("--model-control-mode=explicit", "--load-model=tiny-mlp"),
}
CLIENTS, MOST_SECONDS = 2, 120


class Load:
    """Clients that ask all the time; which versions have answered, and what failed."""

    def __init__(self, url: str) -> None:
        row = samples("mlp")["features"][:1]
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": row.ravel().tolist()}
        self._asked = urllib.request.Request(
            f"{url}/v2/models/tiny-mlp/infer", json.dumps({"inputs": [tensor]}).encode()
        )
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self.versions: list[str] = []
        self.failures: list[str] = []

    def __enter__(self):
        for each in self._clients:
            each.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for each in self._clients:
            each.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with urllib.request.urlopen(self._asked, timeout=60) as answer:
                    self.versions.append(json.load(answer)["model_version"])
            except OSError as error:
                self.failures.append(str(error))

    def wait_for(self, version: str) -> None:
        """Until this version has answered the last ten requests."""
        deadline = time.monotonic() + MOST_SECONDS
        while self.versions[-10:] != [version] * 10:
            assert time.monotonic() < deadline, (version, self.versions[-1:], self.failures[-3:])
            time.sleep(0.05)


@pytest.fixture
def triton(kept, tmp_path):
    """`triton(repository, *flags)`: a server whose models of ONNX Runtime the stand-in backend runs."""

    def start(repository, *flags):
        home, python = triton_home(kept), triton_options(kept).python
        backends = tmp_path / "backends"
        backends.mkdir()
        (backends / "python").symlink_to(home / "backends" / "python")
        (backends / "onnxruntime").mkdir()
        shutil.copy(TEMPLATES / "triton" / "stand_in.py", backends / "onnxruntime" / "model.py")
        ports = free_ports(("http", "grpc", "metrics"), None)
        command = [
            str(home / "bin" / "tritonserver"), f"--model-repository={repository}", f"--backend-directory={backends}",
            "--disable-auto-complete-config", *flags,
            *(f"--{name}-address={HOST}" for name in ports), *(f"--{name}-port={port}" for name, port in ports.items()),
        ]  # fmt: skip
        return running(command, tmp_path, triton_environment(kept, python.parent), ports, tmp_path / "triton.log")

    return start


@pytest.mark.parametrize("mode", MODES)
def test_versions_change_under_load_without_a_failed_request(triton, place, mode):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    options = {"runtime": "triton", "into": place / "models"}
    mlpack.package_into("tiny-mlp@1", **options)
    with triton(place / "models", *MODES[mode]) as server, Load(server.urls["http"]) as load:

        def told(placed) -> None:
            if mode == "explicit":
                for command in placed.next:
                    port = server.urls["http"].rpartition(":")[2]
                    subprocess.run(shlex.split(command.replace(":8000", f":{port}")), check=True, timeout=60)

        load.wait_for("1")
        mlpack.package_into("tiny-mlp@2", **options)
        time.sleep(3)  # longer than the server takes to look at its folder
        assert set(load.versions) == {"1"}, "a copy is no cutover"
        told(mlpack.package_into("tiny-mlp@2", activate=True, **options))
        load.wait_for("2")
        told(mlpack.package_into("tiny-mlp@1", activate=True, **options))
        load.wait_for("1")
    assert load.failures == []
