"""Who runs a model in Triton: its Python backend with either library, and its own OpenVINO backend, stood in for."""

from __future__ import annotations

import pytest
from other_servers import triton_options
from tiny_artifacts import make

import mlpack

pytestmark = pytest.mark.slow
OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino"}


@pytest.fixture
def checked(kept, place, monkeypatch):
    """The check of a package."""
    monkeypatch.setattr("mlpack.api.check._SECONDS", 0.3)
    monkeypatch.setattr("mlpack.api.check._WARM_UP_S", 0.1)

    def call(kind, changes, **options):
        make(place / "artifacts", kind, **changes)
        folder = mlpack.package(f"tiny-{kind}", runtime="triton", **options).path
        found = triton_options(kept)
        return mlpack.check(folder, python=found.python, server=found.server)

    return call


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_the_python_backend_answers_as_was_recorded(checked, library):
    sleeping = {"model__backend_options": {"threads": 2, "waiting": "sleep"}}
    changes, options = (OPENVINO, {}) if library == "openvino" else (sleeping, {"triton_backend": "python"})
    done = checked("mlp", changes, instances=2, **options)
    assert done.problems == ()
    assert [each.door for each in done.replays] == ["http 6×1", "http 1×6", "grpc 6×1", "grpc 1×6"]
    assert done.notes == (), "nothing is stood in for"


def test_the_own_openvino_backend_gets_a_configuration_that_loads(checked):
    done = checked("text", OPENVINO, triton_backend="own")
    assert done.problems == ()
    (note,) = done.notes
    assert note.startswith("stand-in backend: this Triton has no OpenVINO backend, so its Python backend ran openvino")
