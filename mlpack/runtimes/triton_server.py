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
    from collections.abc import Iterator, Sequence

    from mlpack.core.runtime import Running, ServeOptions

VARIABLE = "MLPACK_TRITONSERVER"
# The wheel that holds Triton's core and its Python backend, and where the program lies in an environment that has it.
_WHEEL = "nvidia-pytriton==0.7.0"
_IN_ENVIRONMENT = "lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver"
_WHEEL_LIBRARIES = "nvidia_pytriton.libs"
# What models in a package import by themselves; their image also pins what these need in turn.
_MODEL_LIBRARIES = {"numpy", "onnxruntime", "openvino", "pillow", "pyyaml", "tokenizers"}
# In packages for a card: builds the engine, then becomes the server.
_STARTER = "engine/start.py"
# Compares the model repository with the package's list, then becomes the server.
_VERIFIER = "verified.py"
# What the package's image starts the server with, as far as it does not speak of the image.
_FLAGS = re.compile(r"\"(--(?:cache-config|rate-limit|rate-limit-resource)=[^\"]+)\"")
_STUB = "triton_python_backend_stub"
# Triton's backends that a Python one can stand in for, with what they are called and the library that runs the file.
_BACKENDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


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
    program = _program(options, folder, configs)
    home = program.parent.parent
    stood_in = [
        name
        for name in _BACKENDS
        if any(f'backend: "{name}"' in text for text in configs)
        and not (home / "backends" / name / f"libtriton_{name}.so").is_file()
    ]
    ports = free_ports(("http", "grpc", "metrics"), options.port)
    with tempfile.TemporaryDirectory(prefix="mlpack-triton-") as place:
        backends = _backends(home, Path(place), options.python, stood_in)
        environment = _environment(home, options.python)
        # As the package's image starts it.
        command = [str(program), "--disable-auto-complete-config", f"--backend-directory={backends}"]
        flags = _FLAGS.findall((folder / "Dockerfile").read_text(encoding="utf-8"))
        command += flags
        if any(each.startswith("--cache-config=") for each in flags):
            command.append(f"--cache-directory={home / 'caches'}")
        for name, port in ports.items():
            command += [f"--{name}-address={HOST}", f"--{name}-port={port}"]
        if (folder / _STARTER).is_file():
            # It says itself which repository the server gets: one with the engine that it built or found.
            command = [_python(options.python), "-B", str(folder / _STARTER), *command]
            environment = {"ENGINES": str(Path(place) / "engines"), **environment}
        else:
            command.append(f"--model-repository={repository}")
        if (folder / _VERIFIER).is_file():
            command = [_python(options.python), "-B", str(folder / _VERIFIER), *command]
        environment = {**environment, "MODELS": str(repository)}
        doors = {name: ports[name] for name in ("http", "grpc")}
        notes = tuple(_told(name) for name in stood_in)
        with running(command, folder, environment, doors, log, notes) as server:
            yield server


def _program(options: ServeOptions, folder: Path, configs: Sequence[str]) -> Path:
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
        needed = " ".join([_WHEEL, *_model_pins(folder, configs)])
        raise MissingLibrary(
            f"no tritonserver is on the PATH, and neither --server nor {VARIABLE} names one",
            f"python3 -m venv triton && triton/bin/pip install {needed}, then --python triton/bin/python",
        )
    # Its backends lie beside the program itself, not beside a link to it.
    return Path(found).resolve()


def _model_pins(folder: Path, configs: Sequence[str]) -> list[str]:
    """What the package's image installs for its models, as far as they name it, and what a stand-in needs besides."""
    found = re.search(r"pip3 install --no-cache-dir (.+)", (folder / "Dockerfile").read_text(encoding="utf-8"))
    words = found[1].split() if found else ["numpy==1.26.4"]
    pins = [word for word in words if word.partition("==")[0] in _MODEL_LIBRARIES]
    return [*pins, *(name for name in _BACKENDS if any(f'backend: "{name}"' in text for text in configs))]


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


def _told(name: str) -> str:
    return (
        f"stand-in backend: this Triton has no {_BACKENDS[name]} backend, so its Python backend ran {name}; the "
        "configuration, the scheduler and the values were tried, the backend itself was not"
    )


def _backends(home: Path, place: Path, python: Path | None, stood_in: Sequence[str]) -> Path:
    """The folder of the server's backends: its own, or links to them with what is lacking beside."""
    own = home / "backends"
    stubs = home / "python_backend_stubs"
    has_stub = (own / "python" / _STUB).is_file() or not stubs.is_dir()
    if has_stub and not stood_in:
        return own
    for backend in own.iterdir():
        if backend.name != "python":
            (place / backend.name).symlink_to(backend)
    # A copy: a library that is a link out of its folder is refused.
    shutil.copytree(own / "python", place / "python")
    if not has_stub:
        # The wheel has one for each version of Python, and leaves the choice to who unpacks it.
        shutil.copy2(stubs / _version(python) / _STUB, place / "python")
    for name in stood_in:
        (place / name).mkdir()
        shutil.copyfile(TEMPLATES / "triton" / f"stand_in_{name}.py", place / name / "model.py")
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
