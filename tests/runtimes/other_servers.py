"""Servers that others wrote, fetched once and kept, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock

from mlpack.core.runtime import ServeOptions

# Holds Triton's core (2.51) and its Python backend, whose stub wants numpy 1.
PYTRITON, NUMPY = "nvidia-pytriton==0.7.0", "numpy==1.26.4"


@pytest.fixture(scope="module")
def kept(request):
    """A folder that outlives the session, so that servers are fetched once."""
    return Path(request.config.cache.mkdir("servers"))


def environment(folder: Path, *packages: str) -> Path:
    """The `bin` of a virtual environment with these packages; skips where they cannot be had."""
    ready = folder / "ready"
    # Two workers may want the same one at once.
    with FileLock(f"{folder}.lock"):
        if not ready.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            fetch(folder / "bin" / "python", "install", *packages)
            ready.touch()
    return folder / "bin"


def fetch(python: Path | str, *words: str) -> None:
    done = subprocess.run([python, "-m", "pip", "--quiet", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot get {words[-1]}: {done.stderr.strip().splitlines()[-1]}")


def triton_home(kept: Path) -> Path:
    """The folder of Triton's core and its Python backend; skips where they cannot be had."""
    home = kept / "pytriton" / "pytriton" / "tritonserver"
    with FileLock(str(kept / "pytriton.lock")):
        if not (kept / "pytriton" / "ready").is_file():
            fetch(sys.executable, "download", "--no-deps", "--dest", str(kept / "wheels"), PYTRITON)
            with zipfile.ZipFile(next((kept / "wheels").glob("nvidia_pytriton-*.whl"))) as wheel:
                wheel.extractall(kept / "pytriton")
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            stub = home / "python_backend_stubs" / python / "triton_python_backend_stub"
            # Once: a program that runs cannot be written over.
            shutil.copy(stub, home / "backends" / "python")
            for program in (home / "bin" / "tritonserver", home / "backends" / "python" / stub.name):
                program.chmod(0o755)
            (kept / "pytriton" / "ready").touch()
    return home


def triton_command(home: Path, repository: Path, http: int, grpc: int, *more: str) -> list[str]:
    """How Triton is started, on this machine's own address only."""
    return [
        str(home / "bin" / "tritonserver"), f"--model-repository={repository}",
        f"--backend-directory={home / 'backends'}", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
        f"--http-port={http}", f"--grpc-port={grpc}", "--allow-metrics=false", *more,
    ]  # fmt: skip


def triton_environment(kept: Path, bin_folder: Path) -> dict[str, str]:
    """Variables with which it finds its libraries, and its models their Python."""
    return {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(kept / "pytriton" / "nvidia_pytriton.libs"),
    }


def triton_options(kept: Path) -> ServeOptions:
    """The same for packages: with a Python that has what their models run on."""
    libraries = ("onnxruntime", "openvino", "pyyaml", "tokenizers", "pillow")
    pins = [f"{name}=={metadata.version(name)}" for name in libraries]
    python = environment(kept / "triton-models", NUMPY, *pins) / "python"
    return ServeOptions(python=python, server=triton_home(kept) / "bin" / "tritonserver")
