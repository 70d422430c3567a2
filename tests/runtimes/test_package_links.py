"""Large files of the store are a package's too, where nobody could change both by writing one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tiny_artifacts import make

from mlpack.api.package import package
from mlpack.api.packing import write_file
from mlpack.errors import Tampered

NOBODY = 65534
WEIGHTS = "model/model.onnx.data"


@pytest.fixture
def shared():
    """A folder that a user without rights may write."""
    folder = Path(tempfile.mkdtemp(prefix="mlpack-links-"))
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def unprivileged(store):
    """As a user who owns the store and is not root; whoever runs the tests, where that is not root."""
    if os.geteuid() != 0:
        yield
        return
    for path in (store, *store.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def published(folder, mode=0o444):
    stored = make(folder / "store", "slow")
    for path in stored.path.rglob("*"):
        if path.is_file():
            path.chmod(mode)
    return stored


def test_large_files_are_linked_and_small_ones_are_not(shared):
    stored = published(shared)
    with unprivileged(shared / "store"):
        for relative in (WEIGHTS, "golden/inputs.npz"):
            source, to = stored.path / relative, shared / Path(relative).name
            assert write_file(to, source, (stored,)) == stored.artifact.files[relative]
    assert (shared / "model.onnx.data").samefile(stored.path / WEIGHTS)
    assert not (shared / "inputs.npz").samefile(stored.path / "golden" / "inputs.npz")
    with unprivileged(shared / "store"), pytest.raises(PermissionError):
        (shared / "model.onnx.data").write_bytes(b"other")


def test_a_linked_file_is_held_to_the_sum_that_was_published(shared):
    stored = published(shared)
    weights = stored.path / WEIGHTS
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    weights.chmod(0o444)
    with unprivileged(shared / "store"), pytest.raises(Tampered, match="is not the file that was published"):
        write_file(shared / "model.onnx.data", weights, (stored,))


def test_what_can_be_written_is_copied(shared):
    stored = published(shared, 0o644)
    with unprivileged(shared / "store"):
        write_file(shared / "copy", stored.path / WEIGHTS, (stored,))
    assert not (shared / "copy").samefile(stored.path / WEIGHTS)


@pytest.mark.skipif(os.geteuid() != 0, reason="root is who may write every file")
def test_root_gets_a_copy_and_cannot_alter_the_artifact_through_it(shared):
    stored = published(shared)
    folder = package("tiny-slow", runtime="fastapi", store=shared / "store", out=shared / "package").path
    before = (stored.path / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(b"other")
    assert (stored.path / WEIGHTS).read_bytes() == before


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")  # noqa: S108 - no secret there
def test_across_file_systems_it_is_copied(shared):
    stored = published(shared)
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    other.chmod(0o777)
    try:
        with unprivileged(shared / "store"):
            digest = write_file(other / "copy", stored.path / WEIGHTS, (stored,))
        assert digest == stored.artifact.files[WEIGHTS]
        assert not (other / "copy").samefile(stored.path / WEIGHTS)
    finally:
        shutil.rmtree(other)
