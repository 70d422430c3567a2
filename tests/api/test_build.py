"""`build`: an artifact made for a machine that was not here is finished on one that is, and what is refused."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import yaml
from tiny_artifacts import make

import mlpack
from mlpack.api.engine_script import engine_script
from mlpack.core import machine, targets
from mlpack.core.installation import torch_cuda
from mlpack.core.targets import load_target
from mlpack.errors import (
    DataError,
    MissingHardware,
    MissingLibrary,
    ModelError,
    Tampered,
    UsageError,
)  # fmt: skip
from mlpack.store.verify import verify


@pytest.mark.slow
def test_it_is_finished_here_as_a_new_version_of_the_same_lineage(folder, monkeypatch):
    parent = mlpack.show("tiny@1").artifact
    done = mlpack.build("tiny")
    this = done.stored.artifact
    assert (this.name, this.version, done.unchanged) == ("tiny", 2, False)
    assert this.parent.model_dump() == {"name": "tiny", "version": 1, "digest": parent.digest}
    assert this.lineage[: len(parent.lineage)] == parent.lineage
    (compiled,) = this.lineage[len(parent.lineage) :]
    assert (compiled.stage, compiled.options["backend"]) == ("compile", this.model.backend)
    assert this.model.numerics == parent.model.numerics == "int8"
    assert (this.target["name"], this.target["here"]) == ("server", True)
    assert all(record.baseline and record.optimized and record.speedup for record in this.latency)
    assert {each.backend for each in this.candidates} >= {"onnxruntime"}
    # The same rows judged it, so the two can be compared row by row.
    assert (this.accuracy.part, this.accuracy.samples) == (parent.accuracy.part, parent.accuracy.samples)
    assert (this.accuracy.limit_text, this.accuracy.verdict) == ("3%", "pass")
    verify(done.stored.path)
    reports = {path.name for path in (done.stored.path / "reports").iterdir()}
    assert {"quantize.json", "compile.json", "latency.json", "accuracy-optimized-kept.npz"} <= reports
    steps = yaml.safe_load((done.stored.path / "recipe.yaml").read_text())["steps"]
    assert [next(iter(step)) for step in steps] == ["export", "simplify", "quantize", "compile"]
    assert ("built from", "tiny@1") in {row[:2] for part in mlpack.show("tiny").summary() for row in _rows(part)}
    assert "mlpack build tiny@1" in _commands(mlpack.show("tiny@1").path)

    # What is finished here stays; from the first version on it comes to the same, and nothing new is published.
    assert mlpack.build("tiny").unchanged
    again = mlpack.build("tiny@1")
    assert (again.unchanged, again.stored.artifact.version) == (True, 2)
    assert again.recheck is not None


@pytest.mark.slow
def test_other_data_judges_it_where_it_is_given_and_only_there(folder):
    with np.load("eval.npz") as arrays:
        fewer = {name: array[:-40] for name, array in arrays.items()}
    np.savez("eval.npz", **fewer)
    with pytest.raises(DataError, match="not what tiny@1 was made with: it has changed since") as caught:
        mlpack.build("tiny")
    assert caught.value.hint.endswith("mlpack build tiny@1 --data eval.npz")
    (folder / "elsewhere").mkdir()
    for name in ("model.py", "weights.safetensors", "eval.npz"):
        shutil.move(folder / name, folder / "elsewhere" / name)
    moved = {"model": "elsewhere/model.py:model", "data": "elsewhere/eval.npz"}
    this = mlpack.build("tiny", backend="onnxruntime", target="cpu", max_drop="5%", **moved).stored.artifact
    parent = mlpack.show("tiny@1").artifact
    assert (this.version, this.target["name"], this.accuracy.limit_text) == (2, "cpu", "5%")
    assert this.accuracy.dataset != parent.accuracy.dataset
    assert this.accuracy.samples < parent.accuracy.samples
    assert (this.source.path, this.source.sha256) == (moved["model"], parent.source.sha256)


def test_what_is_not_here_is_asked_for(folder, cli):
    (folder / "eval.npz").rename(folder / "rows.npz")
    with pytest.raises(DataError, match=r"tiny@1 was made with eval\.npz, which is not here") as caught:
        mlpack.build("tiny")
    assert caught.value.hint == "say where it lies: mlpack build tiny@1 --data FILE"
    with pytest.raises(ModelError, match="the original, to time it beside, cannot be used") as caught:
        mlpack.build("tiny", model="gone.pt2", data="rows.npz")
    assert caught.value.hint == "say where it lies: mlpack build tiny@1 --model FILE"
    (folder / "model.py").write_text((folder / "model.py").read_text() + "# another file now\n")
    with pytest.raises(ModelError, match=r"model.py:model is not what tiny@1 was made of"):
        mlpack.build("tiny", data="rows.npz")
    (folder / "artifacts" / "tiny" / "1" / "golden" / "inputs.npz").chmod(0o644)
    (folder / "artifacts" / "tiny" / "1" / "golden" / "inputs.npz").write_bytes(b"other")
    with pytest.raises(Tampered, match=r"golden/inputs\.npz"):
        mlpack.build("tiny")
    ended = cli("build", str(folder / "artifacts" / "tiny" / "1"), "--json")
    assert (ended.code, ended.document["error"]["kind"]) == (5, "Tampered")


def elsewhere(store, name, **changes):
    """An artifact for a named target that is not here."""
    return make(store, target=load_target(name).model_dump(mode="json"), latency=[], **changes)


ABSENT = "raspberry-pi-4" if "asimd" not in machine.isa() else "zen3"
QUANTIZED = {"model__numerics": "int8", "model__quantization": {"rules": "tensorrt-s8s8", "method": "static"}}


def test_a_target_that_is_not_here_is_refused_and_so_are_rules_of_other_hardware(cli, place):
    elsewhere(place / "artifacts", ABSENT)
    ended = cli("build", "--json")
    assert (ended.code, ended.document["error"]["kind"]) == (3, "MissingHardware")
    assert load_target(ABSENT).title in ended.document["error"]["message"]
    assert machine.cpu_name() in ended.document["error"]["message"]
    assert "--target cpu" in ended.document["error"]["hint"], "floats are for every CPU"
    with pytest.raises(UsageError, match="does not say how it was made"):
        mlpack.build(target="cpu")
    shutil.rmtree(place / "artifacts")
    elsewhere(place / "artifacts", "a100", **QUANTIZED)
    with pytest.raises(
        MissingHardware, match=r"NVIDIA A100.* \(compute capability 8.0\), and this machine has"
    ) as caught:
        mlpack.build()
    assert "--target cpu" not in caught.value.hint
    with pytest.raises(UsageError, match="quantized by the rules tensorrt-s8s8, and this machine") as refused:
        mlpack.build(target="cpu")
    assert refused.value.hint == "make one for it: mlpack optimize model.pt2 --target cpu"


def test_what_holds_no_graph_is_refused_and_so_is_a_builder_of_nothing(place):
    make(place / "artifacts", target=load_target("cpu").model_dump(mode="json"), latency=[])
    with pytest.raises(UsageError, match="none is built here"):
        mlpack.build(library="tensorrt")
    with pytest.raises(UsageError, match="unknown backend 'openvin'") as caught:
        mlpack.build(backend="openvin")
    assert caught.value.hint == "did you mean 'openvino'?"
    with pytest.raises(UsageError, match="unknown backend 'tensorrt'"):
        mlpack.build(backend="tensorrt")
    parent = {"name": "tiny-mlp", "version": 1, "digest": "d" * 64}
    engine = {"model__format": "tensorrt", "model__backend": "tensorrt", "parent": parent}
    make(place / "artifacts", version=2, target=load_target("cpu").model_dump(mode="json"), latency=[], **engine)
    with pytest.raises(UsageError, match="holds no graph: its tensorrt file runs where it was compiled") as caught:
        mlpack.build()
    assert caught.value.hint == "mlpack build tiny-mlp@1"


def test_on_the_card_itself_a_torch_that_reaches_it_is_asked_for(place, monkeypatch):
    if torch_cuda() is not None:
        pytest.skip("this torch is built for CUDA")
    driver = place / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 'NVIDIA A10, 23028, 8.6'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{driver.parent}:{os.environ['PATH']}")
    machine.nvidia_devices.cache_clear()
    targets._named.cache_clear()
    try:
        elsewhere(place / "artifacts", "a10", **QUANTIZED)
        with pytest.raises(MissingLibrary, match=r"this torch is a CPU build|TensorRT"):
            mlpack.build()
    finally:
        machine.nvidia_devices.cache_clear()
        targets._named.cache_clear()


def test_the_script_asks_for_a_size_that_nobody_knows(place):
    stored = make(place, "text", model__largest={})
    script = engine_script(stored.model, "NVIDIA A100")
    assert ': "${SIZE_TOKENS:?the largest size of tokens}"' in script
    assert "--minShapes=ids:1x1,mask:1x1" in script
    assert "--maxShapes=ids:32x${SIZE_TOKENS},mask:32x${SIZE_TOKENS}" in script
    known = engine_script(make(place / "b", "text", model__largest={"tokens": 7}).model, "NVIDIA A100")
    assert "SIZE_" not in known
    assert "--optShapes=ids:8x7,mask:8x7" in known
    fixed = engine_script(make(place / "c", batch=3).model, "NVIDIA A100")
    assert "Shapes" not in fixed
    assert "--noTF32 --skipInference" in fixed


def _rows(part):
    return part.rows if hasattr(part, "rows") else ()


def _commands(path):
    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.summary import Commands
    from mlpack.reports.closing import closing

    this = Artifact.model_validate(json.loads((path / "artifact.json").read_text()))
    return "\n".join(
        line for part in closing(Stored(path=path, artifact=this)) if isinstance(part, Commands) for line in part.lines
    )
