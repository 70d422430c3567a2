"""The bare loop: a package's own session in a process that does nothing else, on one core.

Started with the package's folder and the number of the core. Each line on its input is a list of batch sizes, as JSON,
and is answered with the seconds of one call of each, in that order.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np


def main() -> None:
    package, core = Path(sys.argv[1]), int(sys.argv[2])
    sys.path.insert(0, str(package))
    described = import_module("server.description").read_description(package)
    session = import_module("server.sessions").open_session(package, described)
    with np.load(package / "golden" / "inputs.npz") as arrays:
        rows = {name: arrays[name] for name in arrays.files}
    session({name: array[:1] for name, array in rows.items()})
    # Threads that the session has started are there by now; the server's are pinned in the same way.
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        sizes: list[int] = json.loads(line)
        inputs = {
            size: {name: np.resize(array, (size, *array.shape[1:])) for name, array in rows.items()}
            for size in set(sizes)
        }
        session(inputs[sizes[0]])
        taken = []
        for size in sizes:
            begin = time.perf_counter()
            session(inputs[size])
            taken.append(time.perf_counter() - begin)
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
