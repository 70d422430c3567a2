"""Every runtime's package proved on its real server: a table of what was seen, with times.

An artifact of the sample model tiny-mlp is packaged for each runtime, and `mlpack check` starts its server, replays the
golden samples over each protocol and times them. Then: do requests that come together share a run, are there metrics,
does SIGTERM lose a request, is an altered model refused, and does the package answer from its own image? What a runtime
lacks here (a container engine, its base image) is told in its place. Servers that others wrote live in environments of
their own, made once in `.serving/`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import container_engines
import httpx
import psutil
import record
import tables

import mlpack
from mlpack.core.runtime import ServeOptions
from mlpack.errors import MlpackError, Tampered
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from mlpack.core.runtime import Running

MODEL = "tiny-mlp"
PLACE = record.ROOT / ".serving"
# What each server runs on, beside what the package's own requirements name.
SERVERS = {"triton": ("nvidia-pytriton==0.7.0", "numpy==1.26.4", "onnxruntime=={onnxruntime}"),
           "torchserve": ("torchserve==0.12.0", "torch=={torch}", "onnxruntime=={onnxruntime}", "numpy", "psutil",
                          "pyyaml", "packaging", "setuptools")}  # fmt: skip
TOGETHER = 32
# Fewer than the largest batch: they wait for others so long, and the signal finds them waiting.
IN_FLIGHT, PATIENCE_MS, SIGNAL_AFTER_S = 5, 1000.0, 0.4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES.names()), choices=RUNTIMES.names())
    given = parser.parse_args()
    before = {row["runtime"]: row for row in (record.read("serving") or {"rows": []})["rows"]}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        store = Path(folder) / "artifacts"
        data = record.ROOT / "sample_models" / MODEL
        quick = [word for word in record.QUICK if word != "--set"]
        mlpack.optimize(f"{data}/model.py:model", data=data / "eval.npz", store=store, settings=quick, max_drop="none")
        with engines(Path(folder)) as environment:
            os.environ.update(environment)
            for name in given.runtimes:
                before[name] = Trial(name, store, Path(folder)).row()
                print(json.dumps(before[name]), flush=True)
    rows = [before[name] for name in RUNTIMES.names() if name in before]
    record.write("serving", {"model": MODEL, "together": TOGETHER, "rows": rows})
    tables.render_all()
    print(tables.serving(record.read("serving") or {}))
    proved = [all(before[name]["golden"].values()) and before[name]["tampered"] for name in given.runtimes]
    return 0 if all(proved) else 1


class Trial:
    """One runtime: its package, and what its server does."""

    def __init__(self, runtime: str, store: Path, place: Path) -> None:
        self.runtime = RUNTIMES[runtime]
        self.python = environment(runtime)
        self.place = place

        def package(name: str, queue_delay_ms: float) -> Path:
            out = place / f"{runtime}-{name}"
            return Path(
                mlpack.package(MODEL, runtime=runtime, store=store, out=out, queue_delay_ms=queue_delay_ms).path
            )

        self.folder, self.patient = package("usual", 2.0), package("patient", PATIENCE_MS)

    def row(self) -> dict[str, Any]:
        """All that is asked, in turn."""
        done = mlpack.check(self.folder, python=self.python)
        found: dict[str, Any] = {
            "runtime": self.runtime.name,
            "server": done.server if done.server != "the server" else self.runtime.title,
            "start_s": round(done.start_s, 2),
            "golden": {each.protocol: not each.problems for each in done.replays},
            "p50_ms": None if done.load is None else done.load.quantile("p50").ms,
            "notes": list(done.notes),
        }
        with self.served(self.folder) as running:
            found["batching"] = self.batching(running)
            found["metrics"] = self.metrics(running)
        found["sigterm"] = self.ended()
        found["tampered"] = self.tampered()
        found["container"] = self.container()
        return found

    def served(self, folder: Path) -> AbstractContextManager[Running]:
        """The server of a package, as `check` starts it."""
        return self.runtime.serve(folder, ServeOptions(python=self.python), self.place / f"{folder.name}.log")

    def together(self, running: Running, count: int, meanwhile: Callable[[], None] = lambda: None) -> list[int]:
        """The status of so many requests that are sent at once; 0 where the connection broke."""
        body = (self.folder / "golden" / "request.json").read_bytes()
        url = f"{running.urls['http']}/v2/models/{MODEL}/infer"

        def ask(_: int) -> int:
            with suppress(httpx.TransportError):
                return client.post(url, content=body, headers={"Content-Type": "application/json"}).status_code
            return 0

        with httpx.Client(timeout=60, trust_env=False) as client, ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(ask, place) for place in range(count)]
            meanwhile()
            return [each.result() for each in asked]

    def batching(self, running: Running) -> float | None:
        """Requests per run of the model where many come at once, by the server's own count; None: it has none."""
        before = self.runs(running)
        assert set(self.together(running, TOGETHER)) == {200}
        after = self.runs(running)
        return None if before is None or after is None else round(TOGETHER / max(after - before, 1), 1)

    def runs(self, running: Running) -> float | None:
        """How often the model was run."""
        if self.runtime.name == "triton":
            told = httpx.get(f"{running.urls['http']}/v2/models/{MODEL}/stats", trust_env=False).json()
            return float(told["model_stats"][0]["execution_count"])
        counted = [line for line in self.text(running).splitlines() if "batch_rows_count" in line and line[0] != "#"]
        return float(counted[0].rpartition(" ")[2]) if counted else None

    def metrics(self, running: Running) -> int:
        """How many series of this model its metrics have."""
        lines = [line for line in self.text(running).splitlines() if line and line[0] != "#"]
        named = [line for line in lines if MODEL in line]
        return len(named or lines)

    def text(self, running: Running) -> str:
        """The metrics, at whichever of the server's ports they are."""
        process = psutil.Process(running.process.pid)
        for each in (process, *process.children(recursive=True)):
            for listening in each.net_connections("tcp"):
                address = f"http://127.0.0.1:{listening.laddr.port}/metrics"
                with suppress(httpx.TransportError):
                    answer = httpx.get(address, trust_env=False)
                    if answer.is_success:
                        return answer.text
        return ""

    def ended(self) -> dict[str, int]:
        """SIGTERM while requests are in flight: how many were answered, refused, or lost with their connection."""
        with self.served(self.patient) as running:

            def end() -> None:
                time.sleep(SIGNAL_AFTER_S)
                running.process.terminate()
                # As in a container: with the first process all others end.
                running.process.wait(60)
                with suppress(ProcessLookupError):
                    os.killpg(running.process.pid, signal.SIGKILL)

            answers = self.together(running, IN_FLIGHT, end)
        return {"answered": answers.count(200), "lost": len(answers) - answers.count(200)}

    def tampered(self) -> bool:
        """Whether a package with another model is refused by `check`."""
        other = self.place / f"{self.runtime.name}-other"
        shutil.copytree(self.folder, other)
        weights = max((path for path in other.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        # A large file has the mode that it has in the store.
        weights.chmod(0o644)
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        try:
            mlpack.check(other, python=self.python)
        except MlpackError as error:
            return isinstance(error, Tampered)
        return False

    def container(self) -> dict[str, Any]:
        """The verdict in the package's own image, or why there is none."""
        try:
            done = mlpack.check(self.folder, container=True)
        except MlpackError as error:
            return {"why": error.message.replace(str(self.folder), "it").partition(": ")[0]}
        return {"verdict": done.verdict, "start_s": round(done.start_s, 2)}


@contextmanager
def engines(folder: Path) -> Iterator[dict[str, str]]:
    """What podman needs to work here; empty where it cannot, which the table then says."""
    if container_engines.lacking():
        yield {}
        return
    place = folder / "containers"
    place.mkdir()
    with container_engines.engines(place) as environment:
        yield environment


def environment(runtime: str) -> Path | None:
    """The Python that a server is started with; None: the one that runs this."""
    if runtime not in SERVERS:
        return None
    python = PLACE / runtime / "bin" / "python"
    if not (PLACE / runtime / "ready").is_file():
        shutil.rmtree(PLACE / runtime, ignore_errors=True)
        venv.create(PLACE / runtime, with_pip=True)
        versions = {name: metadata.version(name).partition("+")[0] for name in ("torch", "onnxruntime")}
        wanted = [each.format(**versions) for each in SERVERS[runtime]]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        (PLACE / runtime / "ready").touch()
    return python


if __name__ == "__main__":
    sys.exit(main())
