"""`bench`: artifacts and models side by side, from their own rows, with what cannot be compared refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_artifacts import make

import mlpack
from mlpack.core.machine import cpp_compiler
from mlpack.errors import DataError, MissingHardware, ModelError, UsageError

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
QUICK = {"launches": 2, "seconds": 0.03, "threads": 1}


@pytest.mark.slow
def test_an_artifact_on_every_backend_from_its_golden_rows(store):
    done = mlpack.bench(backend="all", batches=[1, 3], **QUICK)
    document = json.loads(json.dumps(done.document()))
    assert [each["backend"] for each in document["contenders"]] == ["onnxruntime", "openvino"]
    assert document["rows"] == "real"
    assert document["threads"] == 1
    assert document["machine"]["cpu"]
    first, second = document["contenders"]
    assert [each["batch"] for each in first["latency"]] == [1, 3]
    for row in first["latency"]:
        assert row["p50"] > 0
        assert row["p50_ci95"][0] <= row["p50"] <= row["p50_ci95"][1]
        assert row["launches"] == 2
        assert (row["p99"] is None) == (row["p99_reason"] is not None)
        assert row["speedup"] is None
    for row in second["latency"]:
        low, high = row["speedup_ci95"]
        assert low <= row["speedup"] <= high
    shares = [each["share"] for each in first["components"]]
    assert sum(shares) == pytest.approx(1)
    names = [each["name"] for each in first["components"]]
    assert names[0] == "copy in"
    assert names[-1] == "copy out"
    assert len(names) > 2


def test_against_is_the_other_way_round_of_the_rivals_speed(store):
    make(store / "other")
    done = mlpack.bench("tiny-mlp", against=str(store / "other" / "tiny-mlp" / "1"), batches=[2], **QUICK)
    (against,) = done.against
    (rival,) = done.contenders[1].latency
    assert against.speedup == pytest.approx(1 / rival.speedup)
    assert against.speedup_ci95[0] == pytest.approx(1 / rival.speedup_ci95[1])
    assert [each.label for each in done.contenders] == ["tiny-mlp@1", "tiny-mlp@1 (2)"]


@pytest.mark.slow
def test_a_model_is_eager_torch_and_its_export_on_all_others(place):
    done = mlpack.bench(f"{TINY}/model.py:model", backend="all", data=TINY / "eval.npz", batches=[1], **QUICK)
    backends = ["torch", "onnxruntime", "openvino", "torch_compile", "aotinductor", "torchscript"]
    if cpp_compiler() is None:
        backends = [name for name in backends if name not in {"torch_compile", "aotinductor"}]
    assert [(each.label, each.backend) for each in done.contenders] == [("model.py:model", name) for name in backends]
    assert done.contenders[0].difference is None
    for each in done.contenders:
        assert each.cold_start_s > 0
        assert each.starts >= 1
        assert each is done.contenders[0] or each.difference < 1e-4
    assert {each.numerics for each in done.contenders} == {"fp32"}
    assert done.rows == "real"
    assert done.contenders[0].components


@pytest.mark.slow
def test_what_a_backend_refuses_is_left_out_and_told(place, monkeypatch):
    monkeypatch.setenv("CXX", shutil.which("false"))
    zoo = Path(__file__).parents[1] / "stages" / "zoo.py"
    done = mlpack.bench(f"{zoo}:branching", inputs=["x=float32:batch,4"], backend="all", batches=[1], **QUICK)
    assert [each.backend for each in done.contenders] == ["torch"]
    told = {line.partition(":branching on ")[2].partition(":")[0]: line for line in done.left_out}
    assert set(told) == {"onnxruntime", "openvino", "torch_compile", "aotinductor", "torchscript"}
    assert "depend" in told["onnxruntime"]
    assert "torch.compile refuses this model on x [1, 4]" in told["torch_compile"]
    assert "differs from the original" in told["torchscript"]
    assert not any("\n" in line for line in done.left_out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_what_is_for_a_card_is_asked_for_by_name_and_refused_without_one(place):
    for backend, reason in {
        "torch_cuda_graph": "torch sees no CUDA device", "torch_tensorrt": "Torch-TensorRT is not installed",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=f"on {backend}: {reason}"):
            mlpack.bench(f"{TINY}/model.py:model", backend=backend, data=TINY / "eval.npz", batches=[1], **QUICK)


@pytest.mark.slow
def test_weights_take_a_factory_and_stand_beside_the_whole_model(place):
    done = mlpack.bench(
        [TINY / "weights.safetensors", f"{TINY}/model.py:model"],
        factory=f"{TINY}/model.py:network", inputs=["features=float32:batch,64"], batches=[1], **QUICK,
    )  # fmt: skip
    assert [each.label for each in done.contenders] == ["weights.safetensors", "model.py:model"]
    assert done.rows == "synthetic"


def test_a_static_batch_decides_the_batch(store):
    make(store / "other", batch=2)
    ref = str(store / "other" / "tiny-mlp" / "1")
    done = mlpack.bench(ref, **QUICK)
    assert [each.batch for each in done.contenders[0].latency] == [2]
    with pytest.raises(UsageError, match="fixed batch of 2"):
        mlpack.bench(ref, batches=[1], **QUICK)


def test_what_cannot_be_timed_is_refused_before_anything_is(store, place):
    make(store, kind="text")
    np.savez(place / "wide.npz", x=np.zeros((30, 9), np.float32))
    quick = {"batches": [1], **QUICK}
    with pytest.raises(UsageError, match="cannot be timed on the same rows"):
        mlpack.bench(["tiny-mlp", "tiny-text"], **quick)
    with pytest.raises(UsageError) as wrong:
        mlpack.bench("tiny-mlp", backend="openvin", **quick)
    assert wrong.value.hint == "did you mean 'openvino'?"
    with pytest.raises(UsageError, match="is onnx, which torch does not run"):
        mlpack.bench("tiny-mlp", backend="torch", **quick)
    with pytest.raises(UsageError, match="unknown artifact"):
        mlpack.bench("tiny-mpl", **quick)
    with pytest.raises(ModelError, match="there is no file"):
        mlpack.bench("missing.pt2", **quick)
    with pytest.raises(DataError, match=r"\[batch, 9\]"):
        mlpack.bench("tiny-mlp", data="wide.npz", **quick)
    for bad in ({"batches": [0]}, {"launches": 1}, {"seconds": float("nan")}):
        with pytest.raises(UsageError):
            mlpack.bench("tiny-mlp", **bad)


def test_a_graph_for_absent_hardware_is_timed_here_only_when_asked_for(store):
    make(store / "other", model__backend_options={"graph_optimizations": "off"})
    ref = str(store / "other" / "tiny-mlp" / "1")
    with pytest.raises(MissingHardware, match="is not here"):
        mlpack.bench(ref, **QUICK)
    assert mlpack.bench(ref, backend="onnxruntime", batches=[1], **QUICK).contenders[0].backend == "onnxruntime"


def test_a_shape_is_timed_on_synthetic_rows_of_it(store):
    make(store, kind="text")
    done = mlpack.bench("tiny-text", shapes=["ids=3,11", "mask=3,11"], **QUICK)
    assert [each.batch for each in done.contenders[0].latency] == [3]
    assert done.rows == "synthetic"


def test_one_shape_decides_all_dims_of_its_names_and_must_fit():
    from mlpack.api.shapes import rows_of
    from mlpack.core.model import TensorSpec

    ids = TensorSpec(name="ids", dtype="int64", dims=("batch", "tokens"))
    mask = TensorSpec(name="mask", dtype="bool", dims=("batch", "tokens"))
    image = TensorSpec(name="image", dtype="float32", dims=("batch", 3, 4))
    batch, rows = rows_of(["ids=3,11"], (ids, mask))
    assert batch == 3
    assert {name: (array.shape, array.dtype.name) for name, array in rows.items()} == {
        "ids": ((3, 11), "int64"), "mask": ((3, 11), "bool"),
    }  # fmt: skip
    for texts, said in (
        (["ids"], "is not NAME=SIZES"),
        (["ids=3,-1"], "is not NAME=SIZES"),
        (["idz=3,1"], "unknown input"),
        (["ids=3"], "does not fit"),
        (["ids=3,11", "mask=3,12"], "does not fit"),
        (["ids=3,11", "mask=4,11"], "does not fit"),
    ):
        with pytest.raises(UsageError, match=said):
            rows_of(texts, (ids, mask))
    with pytest.raises(UsageError, match="does not fit"):
        rows_of(["image=2,3,5"], (image,))
    with pytest.raises(UsageError, match="leaves 'tokens' open"):
        rows_of(["image=2,3,4"], (image, ids))
