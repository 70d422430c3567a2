"""Training rows are read in any order, written down once where a function gives them, and never judged on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mlpack.api.flags import read_recipe
from mlpack.api.training import timed
from mlpack.core.recipe import DataSpec, Recipe, SourceSpec, Step
from mlpack.datasets import open_data
from mlpack.datasets.overlap import refuse_other_kind, refuse_trained
from mlpack.datasets.ref import make_ref, open_part
from mlpack.errors import DataError


def npz(path, start, count, **more):
    x = np.arange(start, start + count, dtype=np.float32)[:, None].repeat(3, 1)
    np.savez(path, x=x, labels=np.arange(count) % 2, **more)
    return open_data(str(path))


def test_what_is_among_both_is_told_once_and_what_is_apart_is_looked_at_once(place):
    judged, train, shared = npz("eval.npz", 0, 30), npz("train.npz", 100, 40), npz("shared.npz", 28, 40)
    checked = place / "checked"
    with pytest.raises(DataError, match=r"2 of 40 rows of the training data.*\(rows 0, 1\)"):
        refuse_trained(judged, shared, checked)
    assert not checked.exists()
    refuse_trained(judged, train, checked)
    assert checked.exists()
    refuse_trained(None, None, checked)


def test_the_same_values_in_another_dtype_are_the_same_rows(place):
    x = np.arange(30, dtype=np.float64)[:, None].repeat(3, 1)
    np.savez("wide.npz", x=x)
    with pytest.raises(DataError, match="30 of 30"):
        refuse_trained(npz("eval.npz", 0, 30), open_data("wide.npz"), place / "checked")


def test_samples_of_different_kinds_cannot_be_compared(place):
    npz("eval.npz", 0, 30)
    (place / "train.csv").write_text("text,label\nfine,1\n")
    with pytest.raises(DataError, match=r"eval.npz holds arrays and train.csv texts"):
        refuse_other_kind("eval.npz", "train.csv")
    refuse_other_kind("eval.npz", "eval.npz")


FUNCTION = """
import numpy as np
from pathlib import Path

def batches():
    calls = Path("calls.txt")
    calls.write_text(str(int(calls.read_text()) + 1 if calls.exists() else 1))
    for start in range(0, 50, 20):
        x = np.arange(start, min(start + 20, 50), dtype=np.float32)[:, None].repeat(3, 1)
        yield {"x": x}, x[:, 0].astype(np.int64)
"""


def test_a_function_is_called_once_and_then_read_in_any_order(place):
    (place / "data.py").write_text(FUNCTION)
    judged = npz("eval.npz", 1000, 30)
    train = open_data("data.py:batches")
    ref = make_ref("eval.npz", judged, train_path="data.py:batches", train=train)
    for rows in ([3, 30, 49], [0, 1]):
        opened = open_part(ref, "train", judged.inputs)
        (batch,) = opened.batches_of(np.array(rows), 8)
        assert batch.inputs["x"][:, 0].tolist() == rows
        assert batch.labels.tolist() == rows
    # Opening it finds the shapes; the first to train opens it again and writes it down.
    assert int((place / "calls.txt").read_text()) == 3
    assert list((place / "cache" / "datasets").rglob(".*")) == []


def test_another_process_may_be_quicker_to_write_it_down(place, monkeypatch):
    (place / "data.py").write_text(FUNCTION)
    judged, train = npz("eval.npz", 1000, 30), open_data("data.py:batches")
    rename = Path.rename

    def late(work, to):
        shutil.copytree(work, to)
        return rename(work, to)

    monkeypatch.setattr(Path, "rename", late)
    opened = open_part(make_ref("eval.npz", judged, train_path="data.py:batches", train=train), "train", judged.inputs)
    assert len(opened) == 50
    assert list((place / "cache" / "datasets").rglob(".*")) == []


def test_a_student_is_found_beside_its_recipe(place):
    (place / "recipes").mkdir()
    (place / "recipes" / "small.py").write_text("def small(): pass\n")
    (place / "here.py").write_text("def small(): pass\n")
    for name, found in (("small.py", "recipes/small.py"), ("here.py", "here.py")):
        step = f"[{{distill: {{student: '{name}:small', epochs: 2}}}}]"
        (place / "recipes" / "r.yaml").write_text(f"source: {{model: m.onnx}}\nsteps: {step}\nbeside: [{step}]\n")
        recipe = read_recipe(Path("recipes/r.yaml"), {}, {})
        for (told,) in (recipe.steps, *recipe.beside):
            assert told.options == {"student": f"{found}:small", "epochs": 2}


def test_half_of_the_time_limit_is_for_training():
    def recipe(*steps, **told):
        return Recipe(
            source=SourceSpec(model="m"), data=DataSpec(), steps=steps, accuracy=Step(stage="check_accuracy"),
            latency=Step(stage="profile_latency"), golden=Step(stage="golden"), **told,
        )  # fmt: skip

    distill, export = Step(stage="distill"), Step(stage="export")
    assert timed(recipe(distill, export)) == recipe(distill, export)
    assert timed(recipe(export, time_limit="1m")) == recipe(export, time_limit="1m")
    limited = timed(recipe(distill, export, time_limit="1m", beside=((distill, export),)))
    assert [step.options for step in limited.steps] == [{"seconds": 30.0}, {}]
    assert limited.beside[0][0].options == {"seconds": 30.0}
    said = Step(stage="distill", options={"seconds": 7})
    assert timed(recipe(said, time_limit="1m")).steps[0].options == {"seconds": 7}
