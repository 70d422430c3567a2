"""The process that children are forked from: `python -m mlpack.engine.forkserver SOCKET MODULE...`.

It imports the modules, says whether it is fit to be forked, and forks for each message: a supervisor, which tells
how its child ended, and the child, which becomes what a new program would have been. It ends with its parent, or
when nobody has asked for long.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from mlpack.core.threads import usable_threads
from mlpack.engine import child, job
from mlpack.engine.fork import FIT, START

_IDLE_SECONDS = 60
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
_PREPARED = (child, job)


def main() -> None:
    """Import, then fork until the parent ends."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        # Whoever needs it will import it again, and say what is wrong.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        channel.send(f"{threads} threads".encode())
        return
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    channel.settimeout(_IDLE_SECONDS)
    channel.send(FIT)
    while True:
        try:
            folder, descriptors, _, _ = socket.recv_fds(channel, 4096, 3)
        except TimeoutError:
            if _idle():
                return
            continue
        if not folder:
            return
        server = os.getpid()
        if os.fork() == 0:
            channel.close()
            _supervise(Path(folder.decode()), descriptors, server)
        for descriptor in descriptors:
            os.close(descriptor)


def _idle() -> bool:
    """Whether no fork lives: the kernel takes those that ended away, as their signal is ignored."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def _supervise(folder: Path, descriptors: list[int], server: int) -> NoReturn:
    """Fork the child, tell its process id, and how it ended."""
    say, output, status = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child.die_with(server)
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(status)
        os.setsid()
        child.die_with(supervisor)
        _become_new(folder, output)
        child.run(folder, say)
    os.close(say)
    os.close(output)
    os.write(status, f"{pid}\n".encode())
    _, ended, usage = os.wait4(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)} {usage.ru_maxrss * 1024}\n".encode())
    os._exit(0)


def _become_new(folder: Path, output: int) -> None:
    """What a new program would have: its own streams, environment, paths, randomness and threads."""
    import numpy as np
    import threadpoolctl

    start = json.loads((folder / START).read_text())
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.chdir(start["folder"])
    os.environ.clear()
    os.environ.update(start["environment"])
    sys.path[:] = start["path"]
    importlib.invalidate_caches()
    tempfile.tempdir = None
    random.seed()
    np.random.seed()  # noqa: NPY002 - the generator that code without one of its own uses
    asked = next((os.environ[name] for name in _THREAD_VARIABLES if os.environ.get(name, "").isdigit()), None)
    threadpoolctl.threadpool_limits(int(asked) if asked else usable_threads(), user_api="blas")


if __name__ == "__main__":
    main()
