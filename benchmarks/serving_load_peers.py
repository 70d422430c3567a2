"""The servers that `serving_load.py` asks beside ours: `python benchmarks/serving_load_peers.py DIR` makes their homes.

Each has a Python environment of its own in DIR, with the library that runs the model; what was made is not made again.
perf_analyzer is there too, with the C libraries of the Debian that it was built for.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.runtime import Running, ServeOptions
from mlpack.runtimes import RUNTIMES
from mlpack.runtimes.server_process import HOST, free_ports, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import serving_load_forms as forms

HERE = Path(__file__).resolve().parent / "peers"
# What each needs beside the library that runs the model and numpy, which are those that are installed here.
PINS = {
    "bentoml": ("bentoml>=1.4,<1.5",),
    "litserve": ("litserve==0.2.19",),
    "mlserver": ("mlserver==1.7.1",),
    "torchserve": ("torchserve==0.12.0", "psutil", "pyyaml", "packaging", "setuptools"),
    "triton": ("nvidia-pytriton==0.7.0", "numpy==1.26.4"),
}
_PERF = ("perf-analyzer==2.60.0", "manylinux_2_38")
# Built for a newer C library than this project's image has: started through that library's own loader.
_PERF_LIBRARIES = ("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g", "libzstd1")
_PERF_SUITE = "trixie"


@dataclass(frozen=True)
class Contender:
    """A server, how it is started, and how it is asked. `settings` are those of its batching, in its own words."""

    name: str
    settings: str
    form: forms.Form
    path: str
    start: Callable[[Path], AbstractContextManager[Running]]


def contenders(package: Path, torchserve: Path, homes: Path, most_rows: int) -> list[Contender]:
    """Ours twice, as JSON and in binary, and the others; all of the model in `package`, of at most so many rows."""
    model = json.loads((package / "model.json").read_text())["name"]
    infer = f"/v2/models/{model}/infer"
    ours = partial(RUNTIMES["fastapi"].serve, package, ServeOptions())
    environment = {"PACKAGE": str(package), "MOST_ROWS": str(most_rows), "PYTHONPATH": str(HERE)}
    started = partial(_started, homes, environment)
    mar = ServeOptions(python=homes / "torchserve" / "bin" / "python")
    delay = f"max_batch={most_rows}, queue_delay_ms=2"
    return [
        Contender("mlpack fastapi, binary", delay, "binary", infer, ours),
        Contender("mlpack fastapi, JSON", delay, "json", infer, ours),
        Contender("TorchServe", f"batchSize={most_rows}, maxBatchDelay=2, one worker", "json", infer,
                  partial(RUNTIMES["torchserve"].serve, torchserve, mar)),
        Contender("BentoML", f"batchable, max_batch_size={most_rows}, one worker", "samples", "/predict",
                  partial(started, "bentoml", _bentoml, "/readyz")),
        Contender("LitServe", f"max_batch_size={most_rows}, batch_timeout=0.002, one worker", "samples", "/predict",
                  partial(started, "litserve", _litserve, "/health")),
        Contender("MLServer", f"max_batch_size={most_rows}, max_batch_time=0.002, one worker", "json", infer,
                  partial(started, "mlserver", partial(_mlserver, model, most_rows), "/v2/health/ready")),
    ]  # fmt: skip


@contextmanager
def _started(
    homes: Path,
    environment: dict[str, str],
    name: str,
    command: Callable[[Path, Path, int], list[str]],
    health: str,
    log: Path,
) -> Iterator[Running]:
    """A server of an environment in `homes`."""
    (port,) = free_ports(("http",), None).values()
    place = log.with_suffix("")
    place.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    bin_folder = homes / name / "bin"
    own = {
        **kept, **environment, "PORT": str(port), "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1", "BENTOML_HOME": str(place), "BENTOML_DO_NOT_TRACK": "True",
    }  # fmt: skip
    asked = partial(_is_good, port, health)
    with running(command(bin_folder, place, port), place, own, {"http": port}, log, (), asked) as server:
        yield server


def _bentoml(bin_folder: Path, _: Path, port: int) -> list[str]:
    return [str(bin_folder / "bentoml"), "serve", "bentoml_service:Model", "--working-dir", str(HERE),
            "--host", HOST, "--port", str(port)]  # fmt: skip


def _litserve(bin_folder: Path, _: Path, __: int) -> list[str]:
    return [str(bin_folder / "python"), str(HERE / "litserve_server.py")]


def _mlserver(model: str, most_rows: int, bin_folder: Path, place: Path, port: int) -> list[str]:
    grpc, metrics = free_ports(("grpc", "metrics"), None).values()
    settings = {"host": HOST, "http_port": port, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 1}
    (place / "settings.json").write_text(json.dumps(settings))
    described = {
        "name": model, "implementation": "mlserver_model.Model", "max_batch_size": most_rows, "max_batch_time": 0.002,
    }  # fmt: skip
    (place / "model-settings.json").write_text(json.dumps(described))
    return [str(bin_folder / "mlserver"), "start", str(place)]


def _is_good(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def perf_analyzer(homes: Path) -> list[str]:
    """The words that it is started with."""
    place = homes / "perf_analyzer"
    (program,) = place.glob("wheel/**/bin/perf_analyzer")
    folders = sorted({str(path.parent) for path in (place / "debian").rglob("*.so*")})
    (loader,) = (place / "debian").rglob("ld-linux-x86-64.so.2")
    return [str(loader), "--library-path", ":".join(folders), str(program)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("homes", type=Path, help="the folder of the environments")
    parser.add_argument("--only", nargs="+", default=[*PINS, "perf_analyzer"], choices=[*PINS, "perf_analyzer"])
    given = parser.parse_args()
    homes: Path = given.homes.resolve()
    failed = []
    for name in given.only:
        if (homes / name / "ready").is_file():
            continue
        print(f"making {name}", flush=True)
        shutil.rmtree(homes / name, ignore_errors=True)
        try:
            _make_perf_analyzer(homes / name) if name == "perf_analyzer" else _make_environment(homes / name)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{name} cannot be had: {error}", flush=True)
            failed.append(name)
            continue
        (homes / name / "ready").touch()
    return 1 if failed else 0


def _make_environment(home: Path) -> None:
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    if home.name == "torchserve":
        # First and alone, so that nothing pulls in another build of it.
        subprocess.run([*pip, f"torch=={_installed('torch')}"], check=True)
    libraries = [f"{name}=={_installed(name)}" for name in ("onnxruntime", "openvino")]
    numpy = [] if home.name == "triton" else ["numpy"]
    subprocess.run([*pip, *PINS[home.name], *libraries, *numpy], check=True)


def _installed(name: str) -> str:
    return metadata.version(name).partition("+")[0]


def _make_perf_analyzer(home: Path) -> None:
    """The wheel, and beside it the libraries that it was built for, unpacked and not installed."""
    wheel, built_for = _PERF
    home.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--only-binary=:all:",
         "--platform", f"{built_for}_{platform.machine()}", "--dest", str(home), wheel],
        check=True,
    )  # fmt: skip
    (file,) = home.glob("*.whl")
    shutil.unpack_archive(file, home / "wheel", "zip")
    for program in (home / "wheel").rglob("perf_analyzer"):
        if program.is_file():
            program.chmod(0o755)
    apt = _apt_of(home)
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *_PERF_LIBRARIES], check=True, cwd=home)
    for package in home.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(home / "debian")], check=True)


def _apt_of(home: Path) -> Sequence[str]:
    """apt-get, told of another suite of this machine's own mirror, with lists of its own."""
    known = Path("/etc/apt/sources.list.d/debian.sources")
    text = known.read_text() if known.is_file() else Path("/etc/apt/sources.list").read_text()
    found = re.search(r"(?m)^(?:URIs: |deb (?:\[[^]]*\] )?)(http\S+)", text)
    if found is None:
        raise FileNotFoundError("apt has no source of Debian's packages")
    (home / "lists").mkdir()
    (home / "sources.list").write_text(f"deb {found[1]} {_PERF_SUITE} main\n")
    options = {
        "Dir::Etc::sourcelist": home / "sources.list", "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": home / "lists", "APT::Sandbox::User": "root",
    }  # fmt: skip
    return ["apt-get", "--quiet", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]


if __name__ == "__main__":
    sys.exit(main())
