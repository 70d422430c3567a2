"""The other end of process.py: `python -m mlpack.engine.child FOLDER PIPE PARENT` runs one function."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlpack.core.filesystem import refused_by_machine
from mlpack.errors import MlpackError
from mlpack.measure.machine import peak_rss_bytes

if TYPE_CHECKING:
    from mlpack.core.stage import Say

_PR_SET_PDEATHSIG = 1
_STEP_SECONDS = 0.1


def main() -> None:
    """Run a job as a program of its own."""
    die_with(int(sys.argv[3]))
    run(Path(sys.argv[1]), int(sys.argv[2]))


def run(folder: Path, pipe: int) -> NoReturn:
    """Run the function that the folder's job.json names, write its result.json, and end this process."""
    warnings.simplefilter("ignore")
    job = json.loads((folder / "job.json").read_text())
    say = _say_into(pipe)
    try:
        module, _, function = job["call"].partition(":")
        with refused_by_machine(folder):
            value = getattr(importlib.import_module(module), function)(say, **job["arguments"])
        result: dict[str, Any] = {"value": value, "peak_rss_bytes": peak_rss_bytes()}
    except MlpackError as error:
        result = {"error": {"kind": error.kind, "message": error.message, "hint": error.hint}}
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)
    except BaseException:  # noqa: BLE001 - the parent raises it again as a bug, with this traceback
        result = {"bug": traceback.format_exc()}
    # Written last and renamed, so that it is whole or absent.
    temporary = folder / "result.tmp"
    try:
        temporary.write_text(json.dumps(result))
    except OSError:
        os._exit(os.EX_IOERR)
    temporary.rename(folder / "result.json")
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries are known to crash while they are torn down; the result is safe on disk.
    os._exit(0)


def die_with(parent: int) -> None:
    """Be killed when the parent ends, which may have happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _say_into(pipe: int) -> Say:
    """Lines of JSON. Steps of one text that come faster than eyes are left out: each wakes the parent."""
    stream = os.fdopen(pipe, "w", buffering=1)
    last_text, last_said = "", 0.0

    def say(text: str, done: int | None = None, total: int | None = None) -> None:
        nonlocal last_text, last_said
        now = time.monotonic()
        if text == last_text and done is not None and done != total and now - last_said < _STEP_SECONDS:
            return
        last_text, last_said = text, now
        stream.write(json.dumps({"text": text, "done": done, "total": total}) + "\n")

    return say


if __name__ == "__main__":
    main()
