"""Functions that the tests start in children: each ends in its own way."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import threadpoolctl

from mlpack import errors


def answer(say, number):
    say("counting", 1, 2)
    return {"number": number + 1}


def segfault(say):
    print("last words", flush=True)
    ctypes.string_at(0)


def abort(say):
    os.abort()


def killed(say):
    os.kill(os.getpid(), signal.SIGKILL)


def leaves(say):
    os._exit(9)


def bug(say):
    raise RuntimeError("something that nobody foresaw")


def refuses(say, kind):
    raise errors.KINDS[kind](f"{kind} says no", "try something else")


def takes_memory(say, megabytes):
    block = bytearray(megabytes * 1_000_000)
    block[::4096] = b"x" * len(block[::4096])
    return len(block)


def says_no_json(say):
    return sys.stdout


def surroundings(say):
    import random
    import tempfile

    import numpy as np

    return {
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "temporary": tempfile.gettempdir(),
        "drawn": [random.random(), float(np.random.random())],
        "torch": "torch" in sys.modules,
        "parent": os.getppid(),
        "blas_threads": [each["num_threads"] for each in threadpoolctl.threadpool_info()],
    }


def waits(say):
    say("ready")
    time.sleep(300)
