"""Run a function in a fresh process: a native crash is a readable error, memory is measured, Ctrl-C ends it."""

from __future__ import annotations

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

from mlpack.errors import KINDS, StageFailed

if TYPE_CHECKING:
    from mlpack.core.stage import Say

_TAIL_LINES = 8


class ChildBug(Exception):  # noqa: N818 - it is a bug of ours, told with the child's traceback
    """The child died of a bug of ours; the message is its traceback."""


@dataclass(frozen=True)
class Finished:
    """What a child gave back, and what it used."""

    value: Any
    peak_rss_bytes: int


def call(reference: str, arguments: dict[str, Any], say: Say) -> Finished:
    """Run `package.module:function(**arguments)` in a fresh process; arguments and result are JSON.

    Raises:
        MlpackError: what the child raised, as it raised it.
        StageFailed: the child was killed (out of memory, a crash in a native library).
        ChildBug: the child raised something that is no MlpackError.
    """
    with tempfile.TemporaryDirectory(prefix="mlpack-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps({"call": reference, "arguments": arguments}))
        reader, writer = os.pipe()
        with (folder / "output.txt").open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "mlpack.engine.child", name, str(writer), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writer,),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        os.close(writer)
        try:
            with os.fdopen(reader) as lines:
                for line in lines:
                    told = json.loads(line)
                    say(told["text"], told["done"], told["total"])
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            _end(child)
            raise
        return Finished(_value(folder, child.returncode, usage), usage.ru_maxrss * 1024)


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if child.returncode is None:
        child.wait()


def _value(folder: Path, returncode: int, usage: resource.struct_rusage) -> Any:
    result = folder / "result.json"
    if result.exists():
        content = json.loads(result.read_text())
        if "value" in content:
            return content["value"]
        if "error" in content:
            error = content["error"]
            raise KINDS[error["kind"]](error["message"], error["hint"])
        raise ChildBug(content["bug"])
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
