"""Run a function in a fresh process: a native crash is a readable error, memory is measured, Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.filesystem import disk_full, refused_by_machine
from mlpack.errors import KINDS, MachineError, StageFailed

if TYPE_CHECKING:
    from mlpack.core.stage import Say

READY = "ready"
_TAIL_LINES = 8


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

    def __init__(self, reference: str, arguments: dict[str, Any], say: Say, place: Path | None = None) -> None:
        """Start it. Its temporary files lie in a folder inside `place`: who sweeps that sweeps what a kill left."""
        self.peak_rss_bytes = 0
        self._say = say
        with refused_by_machine(place or Path(tempfile.gettempdir())):
            self._folder = tempfile.TemporaryDirectory(prefix="mlpack-", dir=place, ignore_cleanup_errors=True)
            folder = Path(self._folder.name)
            (folder / "job.json").write_text(json.dumps({"call": reference, "arguments": arguments}))
        reader, writer = os.pipe()
        with (folder / "output.txt").open("wb") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "mlpack.engine.child", str(folder), str(writer), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(writer,),
                start_new_session=True,
                env={
                    **os.environ,
                    "TMPDIR": str(folder),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
            )
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
            StageFailed: the child was killed (out of memory, a crash in a native library).
            ChildBug: the child raised something that is no MlpackError.
        """
        try:
            with contextlib.suppress(BrokenPipeError):
                assert self._child.stdin is not None
                self._child.stdin.close()
            self.ready()
            _, status, usage = os.wait4(self._child.pid, 0)
            self._child.returncode = os.waitstatus_to_exitcode(status)
            finished = _finished(Path(self._folder.name), self._child.returncode, usage)
            self.peak_rss_bytes = finished.peak_rss_bytes
            return finished.value
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it still runs, and forget its files."""
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        with contextlib.suppress(BrokenPipeError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        self._lines.close()
        self._folder.cleanup()


def call(reference: str, arguments: dict[str, Any], say: Say, place: Path | None = None) -> Finished:
    """Run `package.module:function(say, **arguments)` in a fresh process; arguments and result are JSON.

    Raises:
        MlpackError, ChildBug: as `Launched.finish`.
    """
    child = Launched(reference, arguments, say, place)
    return Finished(child.finish(), child.peak_rss_bytes)


def _finished(folder: Path, returncode: int, usage: resource.struct_rusage) -> Finished:
    result = folder / "result.json"
    if result.exists():
        content = json.loads(result.read_text())
        if "value" in content:
            return Finished(content["value"], content["peak_rss_bytes"])
        if "error" in content:
            error = content["error"]
            raise KINDS[error["kind"]](error["message"], error["hint"])
        raise ChildBug(content["bug"])
    if returncode == os.EX_IOERR:
        raise MachineError(*disk_full(folder))
    peak_gb = usage.ru_maxrss * 1024 / 1e9
    tail = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    said = f": {' | '.join(tail)}" if tail else ""
    if returncode == -signal.SIGKILL:
        raise StageFailed(
            f"its process was killed, most likely for memory: it had taken {peak_gb:.1f} GB{said}",
            "use fewer calibration samples, a smaller evaluation batch, or a machine with more memory",
        )
    cause = signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"
    raise StageFailed(
        f"a native library ended the process ({cause}, {peak_gb:.1f} GB at its peak){said}",
        "try another backend or other numerics; `mlpack logs` has the whole output",
    )
