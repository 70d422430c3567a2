"""Starts the TorchServe of an environment on a package's model store, on this machine's own addresses only."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MissingLibrary, UsageError
from mlpack.runtimes.server_process import HOST, free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.runtime import Running, ServeOptions

_PORTS = {"http": "inference_address", "management": "management_address", "metrics": "metrics_address"}
_GRPC = {"grpc": "grpc_inference", "grpc-management": "grpc_management"}
_SECONDS = 5.0
# Ends the server when it has answered.
_STARTER = "graceful.py"
_NOTES = ("TorchServe gets no more security patches: fastapi or triton for something new",
          "its tokens were off while it was started here")  # fmt: skip


@contextmanager
def serve(folder: Path, options: ServeOptions, log: Path) -> Iterator[Running]:
    """`torchserve` in the foreground, with the package's configuration but for addresses and tokens.

    Raises:
        UsageError: a program is named.
        MissingLibrary: there is no TorchServe, or no Java.
        MachineError, StageFailed: as `running`.
    """
    if options.server is not None:
        raise UsageError("TorchServe is started by the Python that has it", "--python ENV/bin/python")
    program = _program(folder, options.python)
    ports = free_ports((*_PORTS, *_GRPC), options.port)
    (archive,) = (folder / "model_store").glob("*.mar")
    with tempfile.TemporaryDirectory(prefix="mlpack-torchserve-") as place:
        config = Path(place) / "config.properties"
        config.write_text(_configured(folder, ports), encoding="utf-8")
        path = os.pathsep.join([str(program.parent), os.environ.get("PATH", "")])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TS_"))}
        # It writes logs and tokens into the folder that it is started in, and files of workers into the temporary one.
        environment = {**kept, "PATH": path, "TMPDIR": place, "TEMP": place, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(program), "--start", "--foreground", "--ncs", "--ts-config", str(config),
                   "--model-store", str(folder / "model_store")]  # fmt: skip
        if (starter := folder / _STARTER).is_file():
            command = [sys.executable, "-B", str(starter), archive.stem, str(config), *command]
        ready = partial(_is_ready, ports["management"], archive.stem)
        shown = {"http": ports["http"]}
        with running(command, Path(place), environment, shown, log, _NOTES, ready) as server:
            yield server


def _program(folder: Path, python: Path | None) -> Path:
    found = shutil.which("torchserve") if python is None else shutil.which("torchserve", path=str(python.parent))
    if found is None:
        raise MissingLibrary(
            "no torchserve is on the PATH, nor in the environment of --python",
            f"python3 -m venv torchserve && torchserve/bin/pip install -r {folder / 'requirements.txt'}, "
            "then --python torchserve/bin/python",
        )
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise MissingLibrary("TorchServe runs on Java, and there is none", "apt-get install openjdk-17-jre-headless")
    return Path(found)


def _configured(folder: Path, ports: dict[str, int]) -> str:
    """The package's own configuration, with this machine's addresses, and without tokens."""
    own = (folder / "config.properties").read_text(encoding="utf-8").splitlines()
    changed = {
        **{key: f"http://{HOST}:{ports[name]}" for name, key in _PORTS.items()},
        **{f"{key}_address": HOST for key in _GRPC.values()},
        **{f"{key}_port": str(ports[name]) for name, key in _GRPC.items()},
        "disable_token_authorization": "true",
        "model_store": str(folder / "model_store"),
    }
    kept = [line for line in own if line.partition("=")[0] not in changed]
    return "\n".join([*kept, *(f"{key}={value}" for key, value in changed.items())]) + "\n"


def _is_ready(port: int, model: str) -> bool:
    """Whether a worker has loaded the model: /ping is healthy before that."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS)
    try:
        connection.request("GET", f"/models/{model}")
        (told,) = json.loads(connection.getresponse().read())
        return any(worker["status"] == "READY" for worker in told["workers"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()
