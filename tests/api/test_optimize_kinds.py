"""One run end to end for each kind of source, data and metric, on models of a few layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlpack.api.optimize import optimize
from mlpack.core.arrays import load_arrays
from mlpack.store.verify import verify

pytestmark = pytest.mark.slow

MODELS = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


class TwoByTwo(nn.Module):
    """Ids and a mask in, a vector and class scores out."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 5)

    def forward(self, ids, mask):
        seen = self.table(ids) * mask.unsqueeze(-1)
        pooled = seen.sum(1) / mask.sum(1, keepdim=True).clamp(min=1.0)
        return {"pooled": pooled, "scores": self.head(pooled)}


def net():
    torch.manual_seed(0)
    return Net().eval()


def two_by_two():
    torch.manual_seed(0)
    return TwoByTwo().eval()
'''

CODE = """
import numpy as np


def batches():
    arrays = np.load("{folder}/labelled.npz")
    for start in range(0, 120, 24):
        yield {{"x": arrays["x"][start:start + 24]}}, arrays["labels"][start:start + 24]


def right(outputs, labels):
    return outputs["output"].argmax(1) == labels


def top_share(outputs, labels):
    predicted = outputs["output"].argmax(1)
    return float(np.mean([np.mean(predicted[labels == each] == each) for each in np.unique(labels)]))


def distance(outputs, labels):
    return np.abs(outputs["output"].max(1) - 1.0)


distance.higher_is_better = False
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Models and data; the labels are what the original says, but for every tenth."""
    import torch

    place = tmp_path_factory.mktemp("kinds")
    (place / "models.py").write_text(MODELS)
    (place / "code.py").write_text(CODE.format(folder=place))
    names: dict = {}
    exec(compile(MODELS, "models.py", "exec"), names)  # noqa: S102 - the text above
    net, generator = names["net"](), np.random.default_rng(0)
    x = generator.standard_normal((120, 16)).astype("float32")
    with torch.no_grad():
        labels = net(torch.from_numpy(x)).argmax(1).numpy()
    labels[::10] = (labels[::10] + 1) % 5
    np.savez(place / "labelled.npz", x=x, labels=labels)
    np.savez(place / "unlabelled.npz", x=x)
    np.savez(place / "grouped.npz", x=x, labels=labels, group=np.array(["north", "south"])[np.arange(len(x)) % 2])
    ids = generator.integers(0, 20, (120, 7))
    mask = (np.arange(7) < generator.integers(1, 8, (120, 1))).astype("float32")
    np.savez(place / "two.npz", ids=ids, mask=mask, labels=generator.integers(0, 5, 120))
    example = (torch.from_numpy(x[:4]),)
    torch.export.save(torch.export.export(net, example), place / "static.pt2")
    torch.jit.save(torch.jit.trace(net, example), place / "script.pt")
    torch.onnx.export(
        net, example, place / "net.onnx", dynamo=True, input_names=["x"], output_names=["output"],
        dynamic_shapes=({0: "batch"},), verbose=False,
    )  # fmt: skip
    return place


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("user-cache")


@pytest.fixture
def run(folder, user_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLPACK_CACHE", str(user_cache / "mlpack"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))

    def call(model: str, **wanted):
        """Promises fp16 for a card that is not here, so that nothing is timed, unless the test wants otherwise."""
        done = optimize(
            model, **{"numerics": "fp16", "target": "a100", "max_drop": "10%", **wanted}, store=tmp_path / "store"
        )
        stored = done.stored
        assert not done.unchanged
        verify(stored.path)
        assert (Path(stored.path) / "model" / stored.artifact.model.entry).is_file()
        golden = load_arrays(stored.path / "golden" / "outputs.npz")
        assert set(golden) == {spec.name for spec in stored.artifact.model.outputs}
        return stored.artifact

    return call


def test_labelled_data_by_flags(run):
    found = run("models.py:net", data="labelled.npz", max_drop=None)
    assert found.accuracy.metric == "top1"
    assert found.accuracy.verified_on == "labels"
    assert found.accuracy.limit_text == "1%"
    assert found.accuracy.samples == 72
    assert found.model.numerics == "fp16"
    assert found.latency[0].optimized is None
    assert found.latency[0].reason


def test_groups_are_judged_and_flipped_samples_are_listed(run, tmp_path):
    found = run("models.py:net", data="grouped.npz")
    assert {each.group for each in found.accuracy.groups} == {"north", "south"}
    assert sum(each.samples for each in found.accuracy.groups) == found.accuracy.samples
    assert found.accuracy.groups[0].drop >= found.accuracy.groups[1].drop
    reports = tmp_path / "store" / found.name / "1" / "reports"
    rows = set(load_arrays(reports / "accuracy-baseline-kept.npz")["rows"].tolist())
    flipped = json.loads((reports / "flips.json").read_text())
    assert (
        len(flipped["worse"]) - len(flipped["better"])
        == found.accuracy.errors_optimized - found.accuracy.errors_baseline
    )
    assert set(flipped["worse"]) | set(flipped["better"]) <= rows


def test_timed_here(run):
    quick = ("launches=2", "seconds=0.05", "batches=[1]", "components=false")
    settings = (*(f"profile_latency.{each}" for each in quick), "quantize.method=dynamic")
    found = run(
        "models.py:net", data="labelled.npz", numerics=None, target="cpu", backend="onnxruntime", settings=settings,
        threads=1,
    )  # fmt: skip
    assert found.latency[0].baseline is not None
    assert found.latency[0].optimized.p50 > 0
    assert (found.latency[0].batch, found.latency[0].threads) == (1, 1)
    assert sum(candidate.chosen for candidate in found.candidates) == 1
    assert {"fp32", "int8"} <= {candidate.numerics for candidate in found.candidates}


def test_unlabelled_data_is_judged_by_agreement(run):
    found = run("models.py:net", data="unlabelled.npz", max_drop=None)
    assert found.accuracy.metric == "agreement"
    assert found.accuracy.verified_on == "agreement"
    assert found.accuracy.limit_text == "5%"
    assert found.accuracy.verdict in {"pass", "likely", "inconclusive"}


def test_without_data_nothing_is_judged(run):
    found = run("models.py:net", inputs=["x=float32:batch,16"], max_drop=None)
    assert found.accuracy.verdict == "none"
    assert found.accuracy.verified_on == "synthetic"
    assert found.accuracy.limit is None
    assert found.status == "final"


def test_random_calibration_tries_the_mechanics_only(run):
    found = run("models.py:net", inputs=["x=float32:batch,16"], calibration="random:64", numerics="int8", max_drop=None)
    assert found.model.numerics == "int8"
    assert found.accuracy.verdict == "none"
    assert found.accuracy.verified_on == "synthetic"


def test_two_inputs_and_two_outputs(run):
    found = run("models.py:two_by_two", data="two.npz", output="scores", max_drop="50%")
    assert [(spec.name, spec.dtype) for spec in found.model.inputs] == [("ids", "int64"), ("mask", "float32")]
    assert [spec.name for spec in found.model.outputs] == ["pooled", "scores"]
    assert found.accuracy.metric == "top1"


def test_a_static_batch_stays(run):
    found = run("static.pt2", data="labelled.npz")
    assert found.model.inputs[0].dims == (4, 16)
    assert found.source.kind == "exported_program"


def test_a_torchscript_archive(run):
    found = run("script.pt", data="labelled.npz")
    assert found.source.kind == "torchscript"
    assert found.model.inputs[0].dims == ("batch", 16)


def test_an_onnx_file(run):
    found = run("net.onnx", data="labelled.npz")
    assert found.source.kind == "onnx_file"
    assert found.baseline["backend"] == "onnxruntime"


@pytest.mark.parametrize("function", ["right", "top_share", "distance"])
def test_a_metric_of_the_users_own(run, function):
    found = run("models.py:net", data="labelled.npz", metric=f"code.py:{function}", max_drop="50%")
    assert found.accuracy.metric == f"code.py:{function}"
    assert found.accuracy.baseline is not None
    assert found.accuracy.drop_ci90 is not None


def test_data_by_a_function(run):
    found = run("models.py:net", data="code.py:batches")
    assert found.accuracy.samples == 72
    assert found.accuracy.verified_on == "labels"
