"""A calibration that was killed goes on where it was, and finds what it would have found, to the bit."""

import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_graphs

from mlpack.quantization.calibrate import calibrate
from mlpack.quantization.checkpoint import Checkpoint
from mlpack.quantization.observers import observer

METHODS = ["minmax", "moving_average", "percentile", "entropy", "mse"]
BATCHES = 6


class Stopped(Exception):
    """What ends a calibration in the middle."""


def feeds(count=BATCHES):
    """Batches of several sizes, some with larger values than all before, one with infinities, one empty."""
    random = np.random.default_rng(0)
    for index, rows in enumerate((4, 7, 0, 3, 9, 2)[:count]):
        x = (random.standard_normal((rows, 8)) * 3**index).astype(np.float32)
        if index == 3:
            x[0, 0] = np.inf
        yield {"x": x}


def found(method, batches, checkpoint=None):
    make = observer(method, symmetric=False, cut=99.0)
    with tempfile.TemporaryDirectory() as folder:
        graph = onnx.shape_inference.infer_shapes(onnx.load(small_graphs.mlp(Path(folder)).entry_path))
    return calibrate(graph, ["x", "h", "r", "y"], batches, make, threads=1, cut=True, checkpoint=checkpoint)


def interrupted(batches, after):
    for index, batch in enumerate(batches):
        if index == after:
            raise Stopped
        yield batch


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", range(1, BATCHES))
def test_it_goes_on_after_any_batch(tmp_path, method, after):
    path = tmp_path / "state.npz"
    with pytest.raises(Stopped):
        found(method, interrupted(feeds(), after), Checkpoint(path, every_s=0))
    assert path.exists()
    assert found(method, feeds(), Checkpoint(path, every_s=0)) == found(method, feeds())
    assert not list(tmp_path.iterdir()), "nothing is left at the end"


def test_what_was_seen_is_not_run_again(tmp_path):
    path = tmp_path / "state.npz"
    with pytest.raises(Stopped):
        found("minmax", interrupted(feeds(), 5), Checkpoint(path, every_s=0))
    # Other values in the batches that were seen make no difference, as nobody looks at them.
    others = [{"x": batch["x"] * 100} for batch in feeds(5)] + list(feeds())[5:]
    assert found("minmax", others, Checkpoint(path, every_s=0)) == found("minmax", feeds())


def test_a_fresh_one_writes_nothing_before_its_time(tmp_path):
    path = tmp_path / "state.npz"
    with pytest.raises(Stopped):
        found("minmax", interrupted(feeds(), 5), Checkpoint(path))
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_what_cannot_be_read_is_forgotten(tmp_path, content):
    path = tmp_path / "state.npz"
    path.write_bytes(content)
    assert found("entropy", feeds(), Checkpoint(path)) == found("entropy", feeds())
    assert not path.exists()


def test_kill_9_loses_a_batch_at_most(tmp_path):
    path = tmp_path / "state.npz"
    here = str(Path(__file__).parent)
    code = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {here!r})
        from pathlib import Path
        from test_checkpoint import Checkpoint, feeds, found

        def batches():
            for index, batch in enumerate(feeds()):
                if index == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

        found("entropy", batches(), Checkpoint(Path({str(path)!r}), every_s=0))
    """)
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    with np.load(path) as kept:
        assert int(kept["batches"]) == 4
    assert found("entropy", feeds(), Checkpoint(path)) == found("entropy", feeds())
