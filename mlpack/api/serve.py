"""`mlpack.serve()`: an artifact behind a real server on this machine, for as long as one wants to try it."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlpack.api.lookup import artifact as find_artifact
from mlpack.api.lookup import cache_folder
from mlpack.core.filesystem import make_folder, remove, sweep, temporary_sibling
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.runlog import new_log
from mlpack.core.runtime import Running
from mlpack.core.summary import Commands, Told
from mlpack.core.wording import number
from mlpack.errors import UsageError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.artifact import Artifact
    from mlpack.core.summary import Part

PORT = 8000
_MOST_PORT = 65535


@dataclass(frozen=True)
class Serving(Told):
    """A server that answers, inside the `with` that started it. `curl` is a line that asks it."""

    name: str
    version: int
    runtime: str
    url: str
    curl: str
    server: Running

    def wait(self) -> NoReturn:
        """Wait until it is interrupted.

        Raises:
            StageFailed: the server has ended by itself; its log is named.
        """
        from mlpack.runtimes.server_process import until_end

        until_end(self.server)

    def summary(self) -> Iterator[Part]:
        """Where it is, and how to ask it."""
        doors = ", ".join(url for scheme, url in self.server.urls.items() if scheme != "http")
        yield f"{self.name}@{self.version} on {self.url}{f' ({doors})' if doors else ''}"
        yield f"{self.runtime}, ready after {number(self.server.start_s, 3)} s; log: {self.server.log}"
        yield from self.server.notes
        yield "ask it (Ctrl-C stops it):"
        yield Commands((self.curl,))

    def document(self) -> dict[str, Any]:
        """As `--json` prints it, once it is ready."""
        return {
            "name": self.name,
            "version": self.version,
            "runtime": self.runtime,
            "urls": dict(self.server.urls),
            "curl": self.curl,
            "start_s": self.server.start_s,
            "pid": self.server.process.pid,
            "log": str(self.server.log),
            "notes": list(self.server.notes),
        }


@contextmanager
def serve(
    ref: str | None = None,
    *,
    runtime: str = "fastapi",
    port: int = PORT,
    python: str | Path | None = None,
    server: str | Path | None = None,
    force: bool = False,
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Iterator[Serving]:
    """Serve an artifact on this machine's own address as its package would: `with mlpack.serve("net") as serving: ...`.

    The package lies in the cache as long as the server runs; with the block both are gone.

    Args:
        ref: as for `package`.
        runtime: `fastapi`, `triton` or `torchserve`.
        port: where HTTP is spoken; 0: any free one. Triton takes the two ports after it for gRPC and metrics.
        python: as for `check`.
        server: as for `check`.
        force: also serve a candidate, whose accuracy is not proven.
        store: the store; None: what the settings say.
        reporter: is told what is being done.

    Raises:
        UsageError: an unknown artifact or runtime, a candidate without `force`, or an artifact that this runtime
            cannot serve as it was judged.
        Tampered: a file of the artifact is not the one that was published.
        MachineError: the port is taken, or the cache cannot be written.
        MissingLibrary, MissingHardware: what the server needs is not here.
        StageFailed: the server did not get ready; its log is named.
    """
    from mlpack.api.check import serve_options
    from mlpack.api.package import package

    told = reporter or Silent()
    if not 0 <= port <= _MOST_PORT:
        raise UsageError(f"--port {port}: ports are 1 to {_MOST_PORT}, or 0 for a free one", f"--port {PORT}")
    stored = find_artifact(ref, store)
    artifact = stored.artifact
    if artifact.status == "candidate" and not force:
        raise UsageError(
            f"{artifact.name}@{artifact.version} is a candidate: its accuracy is {artifact.accuracy.verdict}",
            f"mlpack serve {artifact.name}@{artifact.version} --force",
        )
    server_of = RUNTIMES[runtime]
    kept = cache_folder() / "serving"
    make_folder(kept)
    sweep(kept)
    folder = temporary_sibling(kept / f"{artifact.name}-{artifact.version}")
    try:
        told.say("packaging")
        place = package(str(stored.path), runtime=runtime, out=folder / "package", force=force).path
        log = new_log(cache_folder() / "logs" / "servers", runtime)
        told.say("starting the server")
        with server_of.serve(place, serve_options(python, server, port or None), log) as running:
            url = running.urls["http"]
            curl = _curl(url, artifact, place)
            yield Serving(artifact.name, artifact.version, runtime, url, curl, running)
    finally:
        remove(folder)


def _curl(url: str, artifact: Artifact, place: Path) -> str:
    """A line that asks the model its first golden sample, where JSON can carry that; else one that describes it."""
    request = place / "golden" / "request.json"
    door = f"{url}/v2/models/{artifact.name}"
    specs = (*artifact.model.inputs, *artifact.model.outputs)
    # Triton takes and gives these as binary only.
    has_half = any(spec.dtype == "float16" for spec in specs)
    if has_half or not request.is_file():
        return shlex.join(["curl", "-s", door])
    return shlex.join(["curl", "-s", f"{door}/infer", "-H", "Content-Type: application/json", "-d", f"@{request}"])
