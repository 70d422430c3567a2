"""`mlpack check` and `mlpack serve` with a real Triton: both protocols, batches, raw samples, what it gets wrong."""

from __future__ import annotations

import os
import shutil
import sys

import psutil
import pytest
from other_servers import triton_options
from raw_artifacts import make_raw
from serving import alter_outputs, replace
from tiny_artifacts import make

from mlpack import check, package, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def checked(kept, place, monkeypatch):
    """The check of a Triton package: `checked("mlp")`; `change(folder)` alters it before."""
    monkeypatch.setattr("mlpack.api.check._SECONDS", 0.3)
    monkeypatch.setattr("mlpack.api.check._WARM_UP_S", 0.1)

    def call(kind, change=None, build=make, **options):
        build(place / "artifacts", kind)
        folder = package(f"tiny-{kind}", runtime="triton", out=place / "package").path
        if change:
            change(folder)
        found = triton_options(kept)
        return check(folder, **{"python": found.python, "server": found.server, **options})

    return call


@pytest.mark.usefixtures("nothing_left")
def test_tensors_go_through_both_protocols_alone_and_together(checked, monkeypatch):
    # Its load is counted: a busy machine may keep one request for longer than the others' 0.3 s.
    monkeypatch.setattr("mlpack.api.check._SECONDS", 3)
    done = checked("mlp")
    assert done.problems == ()
    assert [(each.door, each.form) for each in done.replays] == [
        ("http 6×1", "binary"), ("http 1×6", "binary"), ("grpc 6×1", "protobuf"), ("grpc 1×6", "protobuf"),
    ]  # fmt: skip
    assert {each.name for each in done.replays[0].outputs} == {"logits", "score"}
    assert done.server.startswith("triton 2.")
    assert done.notes[0].startswith("stand-in backend: ")
    assert done.load.good > 0


def test_raw_samples_go_through_the_ensemble(checked, kept, monkeypatch):
    monkeypatch.setenv("MLPACK_TRITONSERVER", str(triton_options(kept).server))
    done = checked("reviews", build=make_raw, server=None)
    assert done.problems == ()
    raw = done.replays[-1]
    assert (raw.door, {each.name for each in raw.outputs}) == ("raw 6×1", {"logits", "label", "score"})


def test_a_difference_shows_at_every_door(checked):
    done = checked("mlp", change=lambda folder: alter_outputs(folder, "score", 4, 0.01))
    found = [(replay.protocol, [each.name for each in replay.outputs if each.problems]) for replay in done.replays]
    assert found == [("http", ["score"]), ("http", ["score"]), ("grpc", ["score"]), ("grpc", ["score"])]
    assert done.load is None


STARTER = """
import os, sys
print("started by the package", flush=True)
command = [*sys.argv[1:], f"--model-repository={os.environ['MODELS']}"]
os.execvp(command[0], command)
"""


def test_a_package_that_starts_its_server_itself_does_so_here(checked):
    def change(folder):
        (folder / "engine").mkdir(exist_ok=True)
        replace(folder, "engine/start.py", STARTER)

    done = checked("mlp", change)
    assert done.problems == ()
    assert "started by the package" in done.log.read_text()


def test_ready_with_empty_answers_is_a_difference(checked):
    """This core under numpy 2, which this Python has, says that it is ready and sends shapes without values."""
    done = checked("mlp", python=sys.executable)
    assert done.verdict == "different"
    assert {each.protocol for each in done.replays if each.problems} == {"http", "grpc"}
    assert all(problem.endswith(" is empty") for problem in done.problems)


@pytest.mark.usefixtures("nothing_left")
def test_the_wheel_is_used_as_it_is_installed(kept, place, monkeypatch):
    """In the environment of `--python`, and without the stub that who unpacks the wheel is meant to choose."""
    make(place / "artifacts", "mlp")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    options = triton_options(kept)
    home = options.server.parent.parent
    (site,) = (options.python.parent.parent / "lib").glob("python3*/site-packages")
    if not (site / "pytriton").is_dir():
        libraries = home.parent.parent / "nvidia_pytriton.libs"
        shutil.rmtree(site / "half", ignore_errors=True)
        shutil.copytree(libraries, site / libraries.name, copy_function=os.link, dirs_exist_ok=True)
        shutil.copytree(home, site / "half" / "tritonserver", copy_function=os.link)
        (site / "half" / "tritonserver" / "backends" / "python" / "triton_python_backend_stub").unlink()
        (site / "half").rename(site / "pytriton")
    with serve(runtime="triton", port=0, python=options.python) as serving:
        assert set(serving.server.urls) == {"http", "grpc"}
        command = psutil.Process(serving.server.process.pid).cmdline()
        assert command[0] == str(site / "pytriton" / "tritonserver" / "bin" / "tritonserver")
