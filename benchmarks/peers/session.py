"""The model as each server here opens it: the session of mlpack's own package, from the file beside it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

MOST_ROWS = int(os.environ["MOST_ROWS"])
# As in the package: how long the oldest request waits for others.
DELAY_MS = 2.0


def open_model() -> Callable[[np.ndarray], np.ndarray]:
    """The first output for samples [rows, inputs, ...]; all inputs of a sample have one shape and are whole numbers."""
    package = Path(os.environ["PACKAGE"])
    sys.path.insert(0, str(package))
    described = import_module("server.description").read_description(package)
    session = import_module("server.sessions").open_session(package, described)
    names = [tensor.name for tensor in described.inputs]
    output = described.outputs[0].name
    # A session has one caller at a time, and not every server promises that.
    one = threading.Lock()

    def run(samples: np.ndarray) -> np.ndarray:
        with one:
            found: np.ndarray = session({name: samples[:, place] for place, name in enumerate(names)})[output]
        return found

    run(np.ones((1, len(names), *described.inputs[0].dims[1:]), np.int64))
    return run
