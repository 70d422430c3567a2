"""`mlpack.check()`: proves a package by its own server: starts it, replays the golden samples, compares, stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api import check_container
from mlpack.api.check_replay import replays
from mlpack.api.checked import Checked
from mlpack.api.lookup import cache_folder
from mlpack.api.package import SCHEMA
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.runlog import new_log
from mlpack.core.runtime import ServeOptions
from mlpack.errors import GateFailed, StageFailed, UsageError
from mlpack.runtimes import RUNTIMES
from mlpack.runtimes.server_process import check_alive
from mlpack.runtimes.templates.client import TIMEOUT_SECONDS, Door, Failed, Golden
from mlpack.store.verify import PACKAGE, verify

if TYPE_CHECKING:
    from mlpack.core.runtime import Running
    from mlpack.measure.load import Load

_SECONDS = 2.0
_WARM_UP_S = 0.4
_DYING_S = 2.0


@progress_in_notebooks
def check(
    package: str | Path,
    *,
    python: str | Path | None = None,
    server: str | Path | None = None,
    container: bool = False,
    reporter: Reporter | None = None,
) -> Checked:
    """Start a package's server on this machine, send it the golden samples, hold its answers to the recorded ones.

    Every file is compared with the package's own list first. Samples go one at a time and, where batch mates change
    nothing, also together; over each protocol that the server speaks; raw ones too where the package takes them. What
    is allowed is the tolerance that was measured with the artifact. The verdict is `same` or `different`; an empty or
    missing output is a difference. Without one, a single client then times the server over HTTP.

    Args:
        package: the folder that `mlpack package` made.
        python: interpreter of an environment that has what the package needs. Default: for a server in Python the
            one that runs mlpack, for Triton's models the `python3` on the PATH.
        server: the `tritonserver` to start. Default: `MLPACK_TRITONSERVER`, the environment of `python`, the PATH.
        container: start it in the package's own image, which is built where it is not there yet.
        reporter: is told what is being done.

    Raises:
        UsageError: the folder is no package, or an option is wrong.
        Tampered: a file of the package is changed, missing or too much; nothing is started.
        MissingLibrary, MissingHardware: what the server needs is not here.
        StageFailed: the server did not get ready, or ended while it was asked; its log is named.
    """
    from mlpack.measure.clients import CLIENTS

    told = reporter or Silent()
    folder = Path(package).expanduser().absolute()
    told.say("comparing the files with the package's list")
    verified = verify(folder)
    if verified.kind != "package":
        raise UsageError(f"{folder} is an artifact, not a package", f"mlpack package {folder} --runtime fastapi")
    record = json.loads((folder / PACKAGE).read_bytes())
    if record.get("schema") != SCHEMA:
        raise UsageError(
            f"{folder} has schema {record.get('schema')}, and this mlpack reads {SCHEMA}",
            "check it with the mlpack that made it",
        )
    # Before a server is started: the table says which extra is missing.
    CLIENTS["http"]
    golden = Golden(folder / "golden")
    log = new_log(cache_folder() / "logs" / "servers", record["runtime"])
    told.say("starting the server")
    runtime = RUNTIMES[record["runtime"]]
    if container and (python is not None or server is not None):
        raise UsageError("an image brings its Python and its server along", "leave --python and --server out")
    with (
        check_container.serve(folder, record, runtime, log)
        if container
        else runtime.serve(folder, serve_options(python, server), log)
    ) as running:
        door = _door(running, golden)
        found = []
        for replay in replays(golden, door, running):
            check_alive(running, 0.0 if replay.failure is None else _DYING_S)
            told.say(f"{replay.door}: {len(replay.problems)} differences")
            found.append(replay)
        load = None
        if not any(each.problems for each in found):
            told.say("timing")
            load = _timed(running, golden)
            check_alive(running)
    return Checked(
        package=folder,
        runtime=record["runtime"],
        name=record["name"],
        version=record["version"],
        digest=record["artifact_digest"],
        files=verified.files,
        server=f"{door.server.get('name', 'the server')} {door.server.get('version', '')}".strip(),
        start_s=running.start_s,
        replays=tuple(found),
        load=load,
        notes=running.notes,
        log=log,
    )


def refuse_different(done: Checked) -> None:
    """Turn a difference into the error of the command line.

    Raises:
        GateFailed: an answer is not the recorded one.
    """
    if done.problems:
        more = f" (and {len(done.problems) - 1} more)" if len(done.problems) > 1 else ""
        raise GateFailed(
            f"{done.name}@{done.version} does not answer as recorded: {done.problems[0]}{more}", f"cat {done.log}"
        )


def serve_options(python: str | Path | None, server: str | Path | None, port: int | None = None) -> ServeOptions:
    """The paths of a command line, from wherever the server will be started."""
    # Not resolved: the Python of an environment is a link to that of the system.
    return ServeOptions(
        port=port,
        python=None if python is None else Path(python).expanduser().absolute(),
        server=None if server is None else Path(server).expanduser().absolute(),
    )


def _door(running: Running, golden: Golden) -> Door:
    try:
        return Door(running.urls["http"], golden.record["version"])
    except (Failed, ValueError) as error:
        check_alive(running)
        raise StageFailed(f"the server does not say what it is: {error}", f"cat {running.log}") from error


def _timed(running: Running, golden: Golden) -> Load:
    """One client that sends the golden inputs in turns, each when the last one is answered."""
    from mlpack.measure.clients import CLIENTS
    from mlpack.measure.load import summarize
    from mlpack.measure.load_drive import Asking, closed_loop, run

    async def main() -> Load:
        async with CLIENTS["http"](running.urls["http"], TIMEOUT_SECONDS) as client:
            if golden.record["version"] is not None:
                await client.server()
            sent = golden.requests(golden.record["rows_per_request"])
            requests = [client.request(golden.record["model"], each) for each in sent]
            asking = Asking(client, requests, tuple(golden.expected))
            return summarize(await closed_loop(asking, 1, _SECONDS, _WARM_UP_S), "closed", 1)

    # No lock: a server that starts and is asked disturbs other timings already, and this one is told, not judged.
    return run(main)
