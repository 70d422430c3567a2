"""A real Triton on a model repository, and clients that ask it all the time while versions change."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from other_servers import triton_environment, triton_home, triton_options

from mlpack.runtimes.package_files import TEMPLATES
from mlpack.runtimes.server_process import HOST, free_ports, running

if TYPE_CHECKING:
    from mlpack.core.runtime import Running

CLIENTS, MOST_SECONDS = 2, 120
POLL = ("--model-control-mode=poll", "--repository-poll-secs=1")
# Longer than the server takes to look at its folder.
LOOK_SECONDS = 3


class Load:
    """Clients of one model that ask all the time; which versions have answered, and what failed."""

    def __init__(self, url: str, model: str, *tensors: dict[str, object]) -> None:
        body = json.dumps({"inputs": tensors}).encode()
        self._asked = urllib.request.Request(f"{url}/v2/models/{model}/infer", body)
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
                said = error.read().decode() if hasattr(error, "read") else ""
                self.failures.append(f"{error} {said}")

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
        shutil.copy(TEMPLATES / "triton" / "stand_in_onnxruntime.py", backends / "onnxruntime" / "model.py")
        ports = free_ports(("http", "grpc", "metrics"), None)
        command = [
            str(home / "bin" / "tritonserver"), f"--model-repository={repository}", f"--backend-directory={backends}",
            "--disable-auto-complete-config", *flags,
            *(f"--{name}-address={HOST}" for name in ports), *(f"--{name}-port={port}" for name, port in ports.items()),
        ]  # fmt: skip
        return running(command, tmp_path, triton_environment(kept, python.parent), ports, tmp_path / "triton.log")

    return start


def look_again(commands: tuple[str, ...], server: Running) -> None:
    """Give the commands that make a server look at its models again, to this one."""
    port = server.urls["http"].rpartition(":")[2]
    for command in commands:
        if command.startswith("curl "):
            subprocess.run(shlex.split(command.replace(":8000", f":{port}")), check=True, timeout=60)
