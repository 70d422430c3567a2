"""`plan`: what is kept and what would run, told without running a stage; what is lacking; can the data decide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlpack
from mlpack.errors import DataError, RecipeError, UnsupportedNumerics, UsageError

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
RECIPE = {
    "source": {"model": f"{TINY}/model.py:model"},
    "data": {"evaluation": f"{TINY}/eval.npz", "metric": "top1"},
    "steps": ["export", {"compile": {"backend": "onnxruntime"}}],
}


def int8(metric):
    """Two other graphs (int8 throughout, and of what has weights), whose answers differ here and there."""
    coarse = {"numerics": "int8", "method": "static", "calibration_method": "percentile", "percentile": 80}
    return {
        **RECIPE,
        "data": {**RECIPE["data"], "metric": metric},
        "steps": ["export", {"quantize": coarse}, RECIPE["steps"][-1]],
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A cache in which the steps of the recipe are done and the original is scored on the choosing rows."""
    from mlpack.api.flags import read_recipe
    from mlpack.api.optimize import settled
    from mlpack.api.prepare import prepare
    from mlpack.core.reporter import Silent
    from mlpack.engine.candidates import candidates
    from mlpack.engine.deadline import Deadline
    from mlpack.engine.run import run
    from mlpack.engine.validate import options_of
    from mlpack.engine.workers import Here

    folder = tmp_path_factory.mktemp("plan")

    def once(name, content, *, scored):
        file = folder / name
        file.write_text(yaml.safe_dump(content))
        recipe = read_recipe(file, {}, {})
        prepared = prepare(recipe, folder / "cache", Silent())
        made = candidates((recipe.steps,), prepared.baseline, prepared.context, Deadline(None), Here(), lambda _: True)
        recipe, _ = settled(recipe, None, prepared)
        scoring = recipe.accuracy.model_copy(update={"options": {**recipe.accuracy.options, "part": "choosing"}})
        for each in (prepared.baseline, *(each.model for each in made if scored)):
            run(options_of(scoring), each, prepared.context)

    once("tiny.yaml", RECIPE, scored=False)
    for metric in ("f1", "top1"):
        once(f"int8-{metric}.yaml", int8(metric), scored=True)
    return folder


@pytest.fixture
def cache(place, done, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(done / "cache"))
    return done


def states(found):
    return [(each.stage, each.state) for each in found.steps]


def test_what_an_earlier_run_did_is_kept(cache):
    found = mlpack.plan(cache / "tiny.yaml")
    assert states(found) == [("load", "kept"), ("export", "kept"), ("compile", "kept")]
    assert [each.depth for each in found.steps] == [0, 1, 2]
    assert found.candidates == 1
    assert dict(found.measuring)["accuracy of the original, choosing rows"] == "kept"
    assert dict(found.measuring)["accuracy of each candidate, choosing rows"] == "0 of 1 kept"
    assert found.lacks == ()
    assert found.disk_bytes == 0


def test_a_file_that_is_named_from_elsewhere_is_the_same_file(cache, monkeypatch):
    monkeypatch.chdir(TINY)
    recipe = {**RECIPE, "source": {"model": "model.py:model"}, "data": {"evaluation": "eval.npz", "metric": "top1"}}
    (cache / "near.yaml").write_text(yaml.safe_dump(recipe))
    assert {state for _, state in states(mlpack.plan(cache / "near.yaml"))} == {"kept"}


def test_a_changed_option_runs_again_and_says_why(cache):
    found = mlpack.plan(cache / "tiny.yaml", settings=["export.opset=19"])
    assert states(found) == [("load", "kept"), ("export", "runs"), ("compile", "unknown")]
    assert found.steps[1].why == ("options.opset: 20 → 19",)
    assert found.candidates is None
    assert found.disk_bytes > 0
    assert json.loads(json.dumps(found.document()))["steps"][1]["why"] == ["options.opset: 20 → 19"]


def test_without_a_loaded_model_all_would_run_and_nothing_is_written(place):
    found = mlpack.plan(f"{TINY}/model.py:model", data=TINY / "eval.npz")
    assert {each.state for each in found.steps[1:]} == {"unknown"}
    assert found.steps[0].state == "runs"
    assert not (place / "cache" / "stages").exists()
    assert (found.disk_bytes, found.memory_bytes) == (None, None)
    assert (found.decision.baseline, found.decision.baseline_measured) == (0.9, False)


def test_fresh_is_as_if_the_cache_were_empty(cache):
    assert mlpack.plan(cache / "tiny.yaml", fresh=True).steps[0].state == "runs"


def test_every_way_that_a_step_proposes_is_shown(cache):
    found = mlpack.plan(f"{TINY}/model.py:model", data=TINY / "eval.npz", settings=["simplify.tolerance=0.001"])
    assert states(found)[:3] == [("load", "kept"), ("export", "kept"), ("simplify", "runs")]
    recipe = {**RECIPE, "steps": ["export", {"quantize": {"numerics": "int8"}, "optional": True}, "compile"]}
    (cache / "int8.yaml").write_text(yaml.safe_dump(recipe))
    found = mlpack.plan(cache / "int8.yaml")
    ways = [each.options.get("method") for each in found.steps if each.stage == "quantize"]
    assert ways == ["dynamic", "static", "static"]
    plain = [each.options["backend"] for each in found.steps if each.stage == "compile" and each.state != "unknown"]
    assert plain == ["onnxruntime", "openvino"]


def test_the_measured_baseline_decides_what_the_data_can_prove(cache):
    found = mlpack.plan(cache / "tiny.yaml").decision
    assert found.baseline_measured
    assert found.baseline > 0.9
    assert found.limit == pytest.approx(found.baseline / 100)
    assert found.samples == 480
    assert not found.enough
    assert found.samples_needed > 1000
    assert mlpack.plan(cache / "tiny.yaml", max_drop="5pt").decision.enough
    assert mlpack.plan(cache / "tiny.yaml", max_drop="none").decision.reason


def test_what_earlier_candidates_changed_tells_what_the_data_can_decide(cache):
    """Of f1 nothing is told before a run; then its width is that of the candidates that were scored."""
    found = mlpack.plan(cache / "int8-f1.yaml", max_drop="5pt")
    told = found.decision
    assert (told.metric, told.differences_from, told.baseline_measured) == ("f1", 2, True)
    assert told.samples == 480
    assert 0 < told.chance <= 1
    assert "as far as measured of 2 candidates" in "\n".join(map(str, found.summary()))
    stricter = mlpack.plan(cache / "int8-f1.yaml", max_drop="2pt").decision
    assert stricter.chance < told.chance
    assert stricter.samples_needed > told.samples_needed
    assert "is not known yet" in mlpack.plan(cache / "tiny.yaml", metric="f1").decision.reason


def test_right_or_wrong_answers_differ_as_often_as_an_earlier_candidates_did(cache):
    """Without an earlier candidate that changed any, two in a hundred are assumed, and that is said."""
    assumed = mlpack.plan(cache / "tiny.yaml")
    assert (assumed.decision.differing, assumed.decision.differences_from) == (0.02, 0)
    assert "  if 2% of its answers differ from the original's (assumed)" in list(assumed.summary())
    found = mlpack.plan(cache / "int8-top1.yaml", max_drop="3pt").decision
    assert found.differences_from == 2
    assert 0 < found.differing < 0.02


def test_clusters_weigh_less_than_their_samples(cache, place):
    rows = dict(np.load(TINY / "eval.npz"))
    rows["cluster"] = np.arange(len(rows["labels"])) // 6
    np.savez(place / "clustered.npz", **rows)
    alone = mlpack.plan(f"{TINY}/model.py:model", data=TINY / "eval.npz", max_drop="5pt").decision
    found = mlpack.plan(f"{TINY}/model.py:model", data=place / "clustered.npz", max_drop="5pt")
    told = found.decision
    assert (told.clusters, told.worth) == (told.samples // 6, told.samples // 6)
    assert told.chance_apart == pytest.approx(alone.chance, abs=0.01)
    assert told.chance < told.chance_apart
    assert told.samples_needed == pytest.approx(6 * alone.samples_needed, rel=0.01)
    assert alone.enough
    assert not told.enough
    line = f"  if the answers of each of their {told.clusters} clusters change together: "
    assert f"{line}they weigh as {told.worth} samples then" in list(found.summary())


def test_another_target_lacks_timing_and_what_it_cannot_do_is_refused(cache):
    found = mlpack.plan(cache / "tiny.yaml", target="a100")
    assert any("latency is not measured here" in each for each in found.lacks)
    with pytest.raises(UnsupportedNumerics, match="has no fp8"):
        mlpack.plan(f"{TINY}/model.py:model", numerics="fp8", data=TINY / "eval.npz", target="a100")


def test_what_cannot_be_used_is_refused(cache, place):
    np.savez(place / "few.npz", features=np.zeros((5, 64), np.float32))
    with pytest.raises(DataError, match="5 samples"):
        mlpack.plan(f"{TINY}/model.py:model", data=place / "few.npz")
    with pytest.raises(UsageError, match="which model"):
        mlpack.plan()
    with pytest.raises(RecipeError, match="unknown key 'opsett'"):
        mlpack.plan(cache / "tiny.yaml", settings=["export.opsett=19"])


def test_it_loads_no_torch_where_the_model_is_known(cache):
    code = f"import sys, mlpack; mlpack.plan({str(cache / 'tiny.yaml')!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=300)
