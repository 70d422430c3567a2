"""Every shipped recipe holds together, and does what it says on the real model and data that it names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpack.api.flags import read_recipe
from mlpack.api.recipes import recipes
from mlpack.core.targets import load_target, targets
from mlpack.engine.validate import check, options_of
from mlpack.measure.limits import Limit

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
KINDS = ("auto", "pruned", "fp32", "fp16", "bf16", "int8")
LARGE_ROWS = 2000
FEW_ROWS_LIMIT = "5%"
BRIEFLY_TRAINED_LIMIT = "30%"
# Seconds on a busy machine are a few steps: too few to make up for much, and at the recipe's rate for anything.
BRIEFLY = ("--set", "distill.seconds=4", "--set", "distill.learning_rate=1e-4", "--set", "prune.amount=0.15")
SHORT = ("--set", "profile_latency.launches=2", "--set", "profile_latency.seconds=0.05")


def read(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    return read_recipe(FOLDER / f"{name}.yaml", {}, {})


def runs_here(recipe):
    target = load_target(recipe.target)
    return recipe.promise is None or recipe.promise in target.numerics


def test_there_are_recipes():
    assert {"digits-resnet-int8-cpu", "reviews-minilm-int8-cpu", "digits-resnet-int8-a100"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_holds_together(name, monkeypatch):
    recipe = read(name, monkeypatch)
    target = load_target(recipe.target)
    accuracy = recipe.accuracy.model_copy(
        update={"options": {**recipe.accuracy.options, "metric": recipe.data.metric or "top1"}}
    )
    if runs_here(recipe):
        check(recipe.model_copy(update={"accuracy": accuracy}), target)
    for step in (*recipe.steps, accuracy, recipe.latency, recipe.golden):
        options_of(step)
    assert Limit.parse(recipe.limit).amount > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_named_by_the_formula(name, monkeypatch):
    recipe = read(name, monkeypatch)
    what, kind, target = re.fullmatch(rf"(.+)-({'|'.join(KINDS)})-([a-z0-9]+)", name).groups()
    assert recipe.name == name
    assert recipe.target == target
    assert target in {each.name for each in targets()}
    assert recipe.promise == (None if kind in {"auto", "pruned"} else kind)
    assert f"sample_models/{what}/" in recipe.source.model


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_names_is_there(name, monkeypatch):
    recipe = read(name, monkeypatch)
    assert Path(recipe.source.model.partition(":")[0]).is_file()
    assert Path(recipe.data.evaluation).is_file()
    assert recipe.data.train is None or Path(recipe.data.train).is_file()


def test_each_has_a_description_of_its_own():
    told = {recipe.name: recipe.description for recipe in recipes()}
    assert sorted(told) == NAMES
    assert all(description.endswith(".") for description in told.values())
    assert len(set(told.values())) == len(told)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One cache and one store: recipes of one model share what comes before their numerics."""
    return tmp_path_factory.mktemp("recipes")


def first_rows(name, place):
    """The large model is run on its first rows only: every step of its recipe, in a quarter of the time.

    So few rows cannot hold it to 1%: they are asked for what they can decide, and so is what trained for seconds.
    """
    limited = ("--max-drop", limit_here(name)) if limit_here(name) else ()
    trained = BRIEFLY if "-pruned-" in name else ()
    if not name.startswith("reviews-minilm"):
        return (*limited, *trained)
    data = place / "first-rows.npz"
    with np.load(ROOT / "sample_models/reviews-minilm/eval.npz") as whole:
        np.savez(data, **{key: whole[key][:LARGE_ROWS] for key in whole.files})
    return ("--data", str(data), *limited, *trained)


def limit_here(name):
    """What the recipe is held to in place of its own limit."""
    if "-pruned-" in name:
        return BRIEFLY_TRAINED_LIMIT
    return FEW_ROWS_LIMIT if name.startswith("reviews-minilm") else None


@pytest.fixture(scope="module")
def optimize(place):
    ended = {}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}

    def call(name):
        if name not in ended:
            few = first_rows(name, place)
            command = [sys.executable, "-c", "from mlpack.cli.app import main; main()", "optimize"]
            words = [f"recipes/{name}.yaml", "--store", str(place / "artifacts"), *few, *SHORT, "--json"]
            done = subprocess.run(
                [*command, *words],
                cwd=ROOT, env={**kept, "MLPACK_CACHE": str(place / "cache")},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            ended[name] = (done.returncode, json.loads(done.stdout), done.stderr)
        return ended[name]

    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_does_what_it_says(name, optimize, monkeypatch):
    from mlpack.api.verify import verify

    recipe = read(name, monkeypatch)
    if not runs_here(recipe):
        pytest.skip(f"this machine has no {recipe.promise}")
    code, told, said = optimize(name)
    assert code in {0, 6}, said
    assert told["accuracy"]["verdict"] in ({"pass", "likely"} if code == 0 else {"inconclusive"})
    assert told["accuracy"]["limit_text"] == (limit_here(name) or recipe.limit)
    assert told["target"]["name"] == recipe.target
    if recipe.promise:
        assert told["model"]["numerics"] == recipe.promise
        assert told["model"]["numerics_share"] >= 0.5
    verify(told["path"])


@pytest.mark.slow
def test_the_graph_for_an_a100_is_one_that_it_compiles(optimize):
    import onnx
    from onnx import TensorProto, numpy_helper

    _, told, said = optimize("digits-resnet-int8-a100")
    folder = Path(told["path"])
    graph = onnx.load(folder / "model" / told["model"]["entry"]).graph
    values = {each.name: each for each in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert {node.op_type for node in pairs} == {"QuantizeLinear", "DequantizeLinear"}, said
    for node in pairs:
        assert len(node.input) == 3, node.name
        zero_point = values[node.input[2]]
        assert zero_point.data_type == TensorProto.INT8, node.name
        assert not np.any(numpy_helper.to_array(zero_point)), node.name
    assert told["model"]["quantization"]["rules"] == "tensorrt-s8s8"
    assert told["accuracy"]["simulated"] is True


@pytest.mark.slow
def test_nothing_is_said_about_latency_on_an_a100_that_is_not_here(optimize):
    _, told, _ = optimize("digits-resnet-int8-a100")
    (timed,) = told["latency"]
    assert (timed["baseline"], timed["optimized"], timed["speedup"], timed["speedup_ci95"]) == (None,) * 4
    assert "A100" in timed["reason"]
    script = (Path(told["path"]) / "build-engine.sh").read_text(encoding="utf-8")
    assert "trtexec --onnx=model/model.onnx" in script
    assert "--int8" not in re.sub(r"#.*", "", script)
