"""No telemetry, ever: onnxruntime's own, on by default since 1.29, is off before the library is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
from mlpack.backends import BACKENDS
BACKENDS[{name!r}]
import sys, time
assert {name!r} in sys.modules, 'the module of the library'
time.sleep(1)
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_loading_a_backend_writes_no_identity_and_no_queue(tmp_path, name):
    """A collector starts with a device id and a database of events in the home or temporary folder."""
    off = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "TF_BUILD"}
    environment = {key: value for key, value in os.environ.items() if key not in off and not key.startswith("XDG_")}
    subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name)],
        env={**environment, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.rglob("*")) == []
