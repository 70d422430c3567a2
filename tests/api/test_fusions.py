"""A graph that is fused for one backend is published as such, and no other backend is given it."""

from pathlib import Path

import pytest

import mlpack
from mlpack.core.artifact import Artifact
from mlpack.errors import StageFailed, UsageError

ZOO = Path(__file__).parents[1] / "stages" / "zoo.py"
QUICK = ("profile_latency.launches=2", "profile_latency.seconds=0.05", "profile_latency.batches=[1]")


@pytest.fixture
def wanted(place):
    return {
        "inputs": ["tokens=int64:batch,12"], "store": "artifacts",
        "settings": (*QUICK, "simplify.fusions=attention"),
    }  # fmt: skip


def test_what_one_backend_alone_runs_says_so(wanted):
    done = mlpack.optimize(f"{ZOO}:headed", **wanted, name="headed")
    artifact = done.stored.artifact
    assert (artifact.model.backend, artifact.model.only) == ("onnxruntime", "onnxruntime")
    assert all("onnxruntime" in each.label for each in artifact.candidates), "no other is even opened"
    assert Artifact.model_validate_json((done.stored.path / "artifact.json").read_text()).model.only == "onnxruntime"
    assert done.stored.model.only == "onnxruntime"
    with pytest.raises(UsageError, match="with operators of onnxruntime, which openvino does not run"):
        mlpack.bench(["headed"], backend="openvino", store="artifacts")


def test_fusions_that_find_nothing_are_no_success(wanted):
    with pytest.raises(StageFailed, match="no attention of this graph") as caught:
        mlpack.optimize(f"{ZOO}:transformer", **wanted)
    assert caught.value.exit_code == 4
