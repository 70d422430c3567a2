"""Starts a Triton that is here on a package's model repository; what its build lacks is stood in for, and told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.machine import nvidia_devices
from mlpack.errors import MissingHardware, MissingLibrary, UsageError
from mlpack.runtimes.package_files import TEMPLATES
from mlpack.runtimes.server_process import HOST, free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.runtime import Running, ServeOptions

VARIABLE = "MLPACK_TRITONSERVER"
# The wheel that holds Triton's core and its Python backend, and where the program lies in an environment that has it.
_WHEEL = "nvidia-pytriton==0.7.0"
_IN_ENVIRONMENT = "lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver"
_WHEEL_LIBRARIES = "nvidia_pytriton.libs"
# What models in a package import by themselves; their image also pins what these need in turn.
_MODEL_LIBRARIES = {"numpy", "openvino", "pillow", "pyyaml", "tokenizers"}
# In packages for a card: builds the engine, then becomes the server.
_STARTER = "engine/start.py"
_CACHE = re.compile(r"--cache-config=[^\"]+")
_STUB = "triton_python_backend_stub"
_ORT_LIBRARY = "libtriton_onnxruntime.so"
_STAND_IN = (
    "stand-in backend: this Triton has no ONNX Runtime backend, so its Python backend ran onnxruntime; the "
    "configuration, the scheduler and the values were tried, the backend itself was not"
)


@contextmanager
def serve(folder: Path, options: ServeOptions, log: Path) -> Iterator[Running]:
    """`tritonserver` on the package's model repository, its models' Python being that of `options.python`.

    Raises:
        UsageError: what `--server` or the variable names is no program.
        MissingLibrary: there is no Triton.
        MissingHardware: the package is for an NVIDIA card.
        MachineError, StageFailed: as `running`.
    """
    repository = folder / "model_repository"
    configs = [path.read_text(encoding="utf-8") for path in sorted(repository.glob("*/config.pbtxt"))]
    if any("KIND_GPU" in text for text in configs) and not nvidia_devices():
        raise MissingHardware(
            "the package is for an NVIDIA card, and this machine shows none", "check it on the machine that will serve"
        )
    program = _program(options, folder)
    home = program.parent.parent
    has_onnx = any('backend: "onnxruntime"' in text for text in configs)
    stood_in = has_onnx and not (home / "backends" / "onnxruntime" / _ORT_LIBRARY).is_file()
    ports = free_ports(("http", "grpc", "metrics"), options.port)
    with tempfile.TemporaryDirectory(prefix="mlpack-triton-") as place:
        backends = _backends(home, Path(place), options.python, stand_in=stood_in)
        environment = _environment(home, options.python)
        # As the package's image starts it.
        command = [str(program), "--disable-auto-complete-config", f"--backend-directory={backends}"]
        if cache := _CACHE.search((folder / "Dockerfile").read_text(encoding="utf-8")):
            command += [cache[0], f"--cache-directory={home / 'caches'}"]
        for name, port in ports.items():
            command += [f"--{name}-address={HOST}", f"--{name}-port={port}"]
        if (folder / _STARTER).is_file():
            # It says itself which repository the server gets: one with the engine that it built or found.
            command = [_python(options.python), "-B", str(folder / _STARTER), *command]
            environment = {"ENGINES": str(Path(place) / "engines"), **environment, "MODELS": str(repository)}
        else:
            command.append(f"--model-repository={repository}")
        doors = {name: ports[name] for name in ("http", "grpc")}
        notes = (_STAND_IN,) if stood_in else ()
        with running(command, folder, environment, doors, log, notes) as server:
            yield server


def _program(options: ServeOptions, folder: Path) -> Path:
    """The program: what is named, else that of the environment, else that on the PATH."""
    named = options.server or os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser().resolve()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise UsageError(f"{path} is no program", "--server PATH names a tritonserver that may be executed")
        return path
    beside = sorted(options.python.parent.parent.glob(_IN_ENVIRONMENT)) if options.python else []
    found = beside[0] if beside else shutil.which("tritonserver")
    if found is None:
        needed = " ".join([_WHEEL, *_model_pins(folder)])
        raise MissingLibrary(
            f"no tritonserver is on the PATH, and neither --server nor {VARIABLE} names one",
            f"python3 -m venv triton && triton/bin/pip install {needed}, then --python triton/bin/python",
        )
    # Its backends lie beside the program itself, not beside a link to it.
    return Path(found).resolve()


def _model_pins(folder: Path) -> list[str]:
    """What the package's image installs for its models, as far as they name it, and what a stand-in needs besides."""
    found = re.search(r"pip3 install --no-cache-dir (.+)", (folder / "Dockerfile").read_text(encoding="utf-8"))
    words = found[1].split() if found else ["numpy==1.26.4"]
    pins = [word for word in words if word.partition("==")[0] in _MODEL_LIBRARIES]
    return pins if any(pin.startswith("openvino") for pin in pins) else [*pins, "onnxruntime"]


def _environment(home: Path, python: Path | None) -> dict[str, str]:
    """Variables with which the server finds its libraries, and its models their Python."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        # A package has the files that it was made with, and no others.
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    libraries = home.parent.parent / _WHEEL_LIBRARIES
    if libraries.is_dir():
        environment["LD_LIBRARY_PATH"] = _first(str(libraries), environment.get("LD_LIBRARY_PATH"))
    if python is not None:
        environment["PATH"] = _first(str(python.parent), environment.get("PATH"))
    return environment


def _first(path: str, others: str | None) -> str:
    return os.pathsep.join([path, others] if others else [path])


def _backends(home: Path, place: Path, python: Path | None, *, stand_in: bool) -> Path:
    """The folder of the server's backends: its own, or links to them with what is lacking beside."""
    own = home / "backends"
    stubs = home / "python_backend_stubs"
    has_stub = (own / "python" / _STUB).is_file() or not stubs.is_dir()
    if has_stub and not stand_in:
        return own
    for backend in own.iterdir():
        if backend.name != "python":
            (place / backend.name).symlink_to(backend)
    # A copy: a library that is a link out of its folder is refused.
    shutil.copytree(own / "python", place / "python")
    if not has_stub:
        # The wheel has one for each version of Python, and leaves the choice to who unpacks it.
        shutil.copy2(stubs / _version(python) / _STUB, place / "python")
    if stand_in:
        (place / "onnxruntime").mkdir()
        shutil.copyfile(TEMPLATES / "triton" / "stand_in.py", place / "onnxruntime" / "model.py")
    return place


def _python(python: Path | None) -> str:
    """The Python that the server's models will find."""
    return str(python or shutil.which("python3") or sys.executable)


def _version(python: Path | None) -> str:
    """Its version, as 3.11."""
    command = [_python(python), "-c"]
    try:
        told = subprocess.run(
            [*command, "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"{command[0]} is no Python that can be run: {error}", "--python ENV/bin/python") from error
    return told.stdout.strip()
