"""Run a function in a process of its own: a native crash is a readable error, memory is measured, Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.filesystem import disk_full, refused_by_machine
from mlpack.engine.fork import fork
from mlpack.engine.program import Program, kill_group
from mlpack.errors import KINDS, Crashed, MachineError, StageFailed

if TYPE_CHECKING:
    from mlpack.core.stage import Say
    from mlpack.engine.program import Ended, Started

READY = "ready"
_TAIL_LINES = 8
_running: dict[Started, object] = {}
_own = threading.local()


class ChildBug(Exception):
    """The child died of a bug of ours; the message is its traceback."""


@dataclass(frozen=True)
class Finished:
    """What a child gave back, and what it used."""

    value: Any
    peak_rss_bytes: int


class Launched:
    """A child that has been started. `ready` waits until it says so, `finish` lets it go on and waits for its end.

    A function that reads a line from its standard input before it goes on can be loaded beside others and then run
    alone: that is how contenders are timed.
    """

    def __init__(
        self,
        reference: str,
        arguments: dict[str, Any],
        say: Say,
        place: Path | None = None,
        imports: tuple[str, ...] | None = None,
    ) -> None:
        """Start it. Its temporary files lie in a folder inside `place`: who sweeps that sweeps what a kill left.

        With `imports` it may be a fork of a process that has imported these; without, it is always a new program,
        whose memory is laid out anew: two launches of that kind differ as two starts of a server do.
        """
        self.peak_rss_bytes = 0
        self._say = say
        with refused_by_machine(place or Path(tempfile.gettempdir())):
            self._folder = tempfile.TemporaryDirectory(prefix="mlpack-", dir=place, ignore_cleanup_errors=True)
            folder = Path(self._folder.name)
            (folder / "job.json").write_text(json.dumps({"call": reference, "arguments": arguments}))
        environment = {**os.environ, "TMPDIR": str(folder)}
        reader, writer = os.pipe()
        with (folder / "output.txt").open("wb") as output:
            forked = None if imports is None else fork(imports, folder, writer, output.fileno(), environment)
            self._child: Started = forked or Program(folder, writer, output.fileno(), environment)
        _running[self._child] = getattr(_own, "team", None)
        os.close(writer)
        self._lines = os.fdopen(reader)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def ready(self) -> None:
        """Wait until the child says READY, or has ended."""
        for line in self._lines:
            told = json.loads(line)
            if told["text"] == READY:
                return
            self._say(told["text"], told["done"], told["total"])

    def finish(self) -> Any:
        """Let it go on, wait for its end, give its value; `peak_rss_bytes` is known then.

        Raises:
            MlpackError: what the child raised, as it raised it.
            StageFailed: the child was killed, for memory most likely.
            Crashed: a native library ended it.
            ChildBug: the child raised something that is no MlpackError.
        """
        try:
            self._child.go_on()
            self.ready()
            finished = _finished(Path(self._folder.name), self._child.wait())
            self.peak_rss_bytes = finished.peak_rss_bytes
            return finished.value
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it still runs, and forget its files."""
        self._child.kill()
        _running.pop(self._child, None)
        self._lines.close()
        self._folder.cleanup()


def call(
    reference: str, arguments: dict[str, Any], say: Say, place: Path | None = None, imports: tuple[str, ...] = ()
) -> Finished:
    """Run `package.module:function(say, **arguments)` in a process of its own; arguments and result are JSON.

    `imports` are modules that it will need: they are imported once for all the calls that name the same ones.

    Raises:
        MlpackError, ChildBug: as `Launched.finish`.
    """
    child = Launched(reference, arguments, say, place, imports)
    return Finished(child.finish(), child.peak_rss_bytes)


def join(team: object) -> None:
    """What this thread starts from now on is this team's."""
    _own.team = team


def end_running(team: object) -> None:
    """Kill the children of a team's threads that still run: each thread, which waits for its own, finds it killed."""
    for child, whose in tuple(_running.items()):
        if whose is team:
            kill_group(child.pid)


def _finished(folder: Path, ended: Ended) -> Finished:
    result = folder / "result.json"
    if result.exists():
        content = json.loads(result.read_text())
        if "value" in content:
            return Finished(content["value"], content["peak_rss_bytes"])
        if "error" in content:
            error = content["error"]
            raise KINDS[error["kind"]](error["message"], error["hint"])
        raise ChildBug(content["bug"])
    if ended.exit_code == os.EX_IOERR:
        raise MachineError(*disk_full(folder))
    peak_gb = ended.peak_rss_bytes / 1e9
    tail = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    said = f": {' | '.join(tail)}" if tail else ""
    if ended.exit_code == -signal.SIGKILL:
        raise StageFailed(
            f"its process was killed, most likely for memory: it had taken {peak_gb:.1f} GB{said}",
            "use fewer calibration samples, a smaller evaluation batch, or a machine with more memory",
        )
    code = ended.exit_code
    cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    raise Crashed(
        f"a native library ended the process ({cause}, {peak_gb:.1f} GB at its peak){said}",
        "try another backend or other numerics; `mlpack logs` has the whole output",
    )
