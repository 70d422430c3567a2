"""Keys, their ingredients, and what becomes of a child that ends badly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.core.dataset import DataRef
from mlpack.core.model import Model, TensorSpec
from mlpack.core.report import Report
from mlpack.core.reporter import Silent
from mlpack.core.settings import UNFINISHED
from mlpack.core.stage import Stage
from mlpack.core.targets import load_target
from mlpack.engine import process
from mlpack.engine.cache import Done, find, ingredients, key_of, record
from mlpack.engine.context import Context
from mlpack.engine.run import run
from mlpack.errors import KINDS, MlpackError, StageFailed
from mlpack.stages import STAGES


def quiet(text, done=None, total=None):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.onnx").write_bytes(b"weights")
    spec = TensorSpec(name="x", dtype="float32", dims=("batch", 4))
    return Model(path=folder, entry="model.onnx", format="onnx", inputs=(spec,), outputs=(spec,))


@pytest.fixture(scope="module")
def context(tmp_path_factory, model):
    ref = DataRef(path="x.npz", fingerprint="f", inputs=model.inputs, labelled=True, size=60)
    return Context(
        cache=tmp_path_factory.mktemp("cache"), target=load_target("cpu"), threads=2, seed=0, reporter=Silent(),
        data=ref, parts={"calibration": "c", "choosing": "h", "confirming": "k"}, baseline=model,
    )  # fmt: skip


def key(stage: Stage, model: Model | None, context: Context, rivals: dict[str, Model] | None = None) -> str:
    return key_of(ingredients(stage.name, stage, model, context, rivals or {}))


def test_the_same_ingredients_give_the_same_key(model, context):
    stage = STAGES["quantize"](numerics="int8")
    assert key(stage, model, context) == key(stage.model_copy(), model.model_copy(), replace(context, fresh=True))


@given(
    one=st.fixed_dictionaries(
        {
            "per_channel": st.booleans(),
            "samples": st.integers(1, 600),
            "percentile": st.floats(51, 100),
            "method": st.sampled_from(["auto", "static", "dynamic"]),
        }
    ),
    other=st.fixed_dictionaries(
        {
            "per_channel": st.booleans(),
            "samples": st.integers(1, 600),
            "percentile": st.floats(51, 100),
            "method": st.sampled_from(["auto", "static", "dynamic"]),
        }
    ),
)
@settings(max_examples=60)
def test_keys_are_equal_exactly_where_options_are(one, other, model, context):
    kind = STAGES["quantize"]
    keys = [key(kind(numerics="int8", **options), model, context) for options in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_each_ingredient_changes_the_key(model, context, tmp_path):
    stage = STAGES["check_accuracy"](metric="top1", part="choosing")
    (tmp_path / "model.onnx").write_bytes(b"other weights")
    changed = {
        "other weights": key(stage, model.model_copy(update={"path": tmp_path}), context),
        "other numerics": key(stage, model.model_copy(update={"numerics": "int8"}), context),
        "other data": key(stage, model, replace(context, parts={**context.parts, "choosing": "other"})),
        "other seed": key(stage, model, replace(context, seed=1)),
        "other target": key(stage, model, replace(context, target=load_target("a100"))),
        "other threads": key(stage, model, replace(context, threads=1)),
        "other rivals": key(stage, model, context, {"rival": model}),
        "other metric file": key(stage.model_copy(update={"metric_sha256": "1" * 64}), model, context),
        "other stage": key(STAGES["golden"](), model, context),
        "the same": key(stage, model, context),
    }
    assert len(set(changed.values())) == len(changed), changed


def test_data_that_a_stage_does_not_read_is_not_in_its_key(model, context):
    stage = STAGES["check_accuracy"](metric="top1", part="choosing")
    other = replace(context, parts={**context.parts, "confirming": "other"})
    assert key(stage, model, other) == key(stage, model, context)


def test_training_is_in_the_key_exactly_where_there_is_some(model, context):
    """How a form that misses the limit would be trained says nothing of the form that is not."""
    kind = STAGES["quantize"]
    plain, needed, longer, always = (
        kind(numerics="int8", method="static", train=train, training={"seconds": seconds})
        for train, seconds in (("never", None), ("needed", 5), ("needed", 60), ("always", 60))
    )
    assert len({key(each, model, context) for each in (plain, needed, longer)}) == 1
    others = replace(context, parts={**context.parts, "train": "other"}), replace(context, threads=1)
    for other in others:
        assert key(needed, model, other) == key(needed, model, context)
        assert key(always, model, other) != key(always, model, context)


def test_what_is_kept_has_the_options_that_it_is_asked_for_with_now(model, context):
    """A search goes on from them: what was made without any training is trained where it misses the limit."""
    once, now = (
        STAGES["quantize"](numerics="int8", method="static", train=train, training={"seconds": 7})
        for train in ("never", "needed")
    )
    content = ingredients(once.name, once, model, context, {})
    folder = context.cache / "stages" / key_of(content)[:2] / key_of(content)
    folder.mkdir(parents=True)
    done = Done(
        stage=once.name, options=once.model_dump(mode="json"), key=key_of(content), ingredients=content, model=model,
        report=Report(), folder=folder, seconds=1, peak_rss_bytes=1, reused=False,
    )  # fmt: skip
    (folder / "stage.json").write_text(record(done, folder))
    again = run(now, model, context)
    assert again.reused
    assert again.options == now.model_dump(mode="json")


def test_the_ingredients_are_kept_beside_the_key(model, context, tmp_path):
    stage = STAGES["golden"]()
    content = ingredients("golden", stage, model, context, {})
    done = Done(
        stage="golden", options=stage.model_dump(mode="json"), key=key_of(content), ingredients=content, model=model,
        report=Report(metrics={"a": 1}), folder=tmp_path, seconds=1.5, peak_rss_bytes=7, reused=False,
    )  # fmt: skip
    assert find(tmp_path) is None
    (tmp_path / "stage.json").write_text(record(done, tmp_path))
    again = find(tmp_path)
    assert again is not None
    assert again == done.model_copy(update={"reused": True})
    written = json.loads((tmp_path / "stage.json").read_text())
    assert key_of(again.ingredients) == again.key == key_of(written["ingredients"])


def test_a_child_gives_its_value_back_and_says_how_far_it_is():
    said = []
    done = process.call("children:answer", {"number": 4}, lambda *told: said.append(told))
    assert done.value == {"number": 5}
    assert said == [("counting", 1, 2)]


@pytest.mark.parametrize(
    ("function", "words"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("leaves", "exit status 9")]
)
def test_a_child_that_dies_is_a_readable_error(function, words):
    with pytest.raises(StageFailed) as failed:
        process.call(f"children:{function}", {}, quiet)
    assert words in failed.value.message
    assert failed.value.hint


def test_the_last_words_of_a_dead_child_are_shown():
    with pytest.raises(StageFailed, match="last words"):
        process.call("children:segfault", {}, quiet)


def test_a_child_that_is_killed_tells_its_memory():
    with pytest.raises(StageFailed, match=r"memory: it had taken \d+\.\d GB") as failed:
        process.call("children:killed", {}, quiet)
    assert "fewer calibration samples" in failed.value.hint


def test_a_bug_in_a_child_is_a_bug_here_with_its_traceback():
    with pytest.raises(process.ChildBug, match="something that nobody foresaw") as raised:
        process.call("children:bug", {}, quiet)
    assert "Traceback" in str(raised.value)
    assert not isinstance(raised.value, MlpackError)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_travel_as_what_they_are(kind):
    with pytest.raises(KINDS[kind]) as raised:
        process.call("children:refuses", {"kind": kind}, quiet)
    assert type(raised.value) is KINDS[kind]
    assert (raised.value.message, raised.value.hint) == (f"{kind} says no", "try something else")


def test_peak_memory_is_that_of_the_child_alone():
    ballast = bytearray(900_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    small = process.call("children:takes_memory", {"megabytes": 1}, quiet).peak_rss_bytes
    large = process.call("children:takes_memory", {"megabytes": 301}, quiet).peak_rss_bytes
    del ballast
    assert small < 400_000_000
    assert 290_000_000 < large - small < 320_000_000


def test_a_child_that_is_ended_is_gone():
    launched = process.Launched("children:waits", {}, quiet)
    launched.ready()
    assert psutil.pid_exists(launched.pid)
    launched.end()
    assert not psutil.pid_exists(launched.pid)


def test_children_die_with_their_parent():
    """A parent that is killed outright cannot end its children itself."""
    script = (
        "from mlpack.engine import process\n"
        "launched = process.Launched('children:waits', {}, print)\n"
        "launched.ready()\nprint(launched.pid, flush=True)\nlaunched.finish()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    end = time.monotonic() + 300
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_stage_that_fails_leaves_nothing_in_the_cache(model, context, tmp_path):
    """`weights` is no ONNX: the stage's own library refuses it."""
    fresh = replace(context, cache=tmp_path, data=None, parts={})
    with pytest.raises((MlpackError, process.ChildBug)):
        run(STAGES["compile"](backend="onnxruntime"), model, fresh)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert [path for path in tmp_path.rglob("*") if ".tmp-" in path.name] == []


def test_fresh_begins_anew_also_what_was_left_unfinished(model, context, tmp_path):
    """The stage is refused, which leaves what is unfinished as the run found it."""
    stage, context = STAGES["compile"](backend="onnxruntime"), replace(context, cache=tmp_path, data=None, parts={})
    left = tmp_path / UNFINISHED / key(stage, model, context) / "training.pt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"steps")
    for fresh in (False, True):
        with pytest.raises((MlpackError, process.ChildBug)):
            run(stage, model, replace(context, fresh=fresh))
        assert left.exists() is not fresh
