"""--train, --distill and --student: what they refuse, and a small model of one's own from start to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
MODEL = ("optimize", f"{TINY}/model.py:model", "--data", f"{TINY}/eval.npz")
TRAIN = ("--train", f"{TINY}/train.npz")
SHORT = (
    "--set", "profile_latency.launches=1", "--set", "profile_latency.seconds=0.05",
    "--set", "profile_latency.components=false", "--backend", "onnxruntime", "--threads", "1",
)  # fmt: skip
STUDENT = """
from torch import nn, relu

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, features):
        return self.head(relu(self.hidden(features)))
"""


@pytest.fixture
def student(place):
    (place / "small.py").write_text(STUDENT)
    return "small.py:Small"


def refused(ended, *words):
    assert ended.code == 2, ended.err
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err


def test_training_data_that_nothing_trains_on_is_refused(cli):
    refused(cli(*MODEL, *TRAIN), "--train: no step trains on it")


def test_the_original_does_not_learn_from_itself(cli):
    refused(cli(*MODEL, *TRAIN, "--distill"), "nothing to learn from its own answers", "--student")


def test_without_training_data_it_says_which_flag(cli, student):
    for command in ("optimize", "plan"):
        refused(cli(command, *MODEL[1:], "--student", student), "distill has nothing to learn from", "--train")


def test_rows_that_are_judged_on_are_not_trained_on(cli, student, place):
    with np.load(TINY / "eval.npz") as judged, np.load(TINY / "train.npz") as train:
        both = {name: np.concatenate([train[name], judged[name][5:8]]) for name in judged.files}
    np.savez(place / "both.npz", **both)
    ended = cli(*MODEL, "--train", "both.npz", "--student", student)
    refused(ended, "3 of 1000 rows of the training data are also in the evaluation data", "rows 997, 998, 999")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--student", "nowhere.py:Small"), "there is no file nowhere.py"),
        (("--student", "small.py:Small", "--set", "distill.epochs=0"), "distill"),
        (("--student", "small.py:Small", "--set", "distill.hidden_weight=2"), "is for hidden states"),
        (("--student", "small.py:Small", "--set", "distill.alfa=1"), "did you mean 'alpha'?"),
    ],
)
def test_wrong_options_are_refused(cli, student, words, said):
    refused(cli(*MODEL, *TRAIN, *words), said)


def test_training_data_of_other_inputs_is_refused(cli, student, place):
    np.savez(place / "other.npz", features=np.zeros((30, 9), np.float32))
    refused(cli(*MODEL, "--train", "other.npz", "--student", student), "[batch, 9]")


def test_a_setting_that_nothing_uses_is_no_mistake(cli, place):
    (place / "mlpack.toml").write_text(f'train = "{TINY}/train.npz"\n')
    ended = cli("plan", *MODEL[1:], "--json")
    assert ended.code == 0, ended.err
    assert "distill" not in {step["stage"] for step in ended.document["steps"]}


def test_auto_tries_both_and_the_plan_says_so(cli, student):
    ended = cli("plan", *MODEL[1:], *TRAIN, "--student", student, "--auto", "--time-limit", "2m", "--json")
    assert ended.code == 0, ended.err
    steps = [(step["stage"], step["options"]) for step in ended.document["steps"]]
    (options,) = (options for stage, options in steps if stage == "distill")
    # Half of the limit, shared with int8 graphs, which are trained where they miss the limit on accuracy.
    assert options["seconds"] == 30
    assert [stage for stage, _ in steps].count("export") == 2


@pytest.mark.slow
def test_a_smaller_module_is_trained_proven_and_published(cli, student):
    words = (*MODEL, *TRAIN, "--student", student, "--max-drop", "20%", *SHORT, "--json")
    ended = cli(*words)
    assert ended.code == 0, ended.err
    told = ended.document
    assert told["accuracy"]["verdict"] in {"pass", "likely"}
    assert told["model"]["size_bytes"] < 64 * 48 * 4
    (trained,) = (each for each in told["lineage"] if each["stage"] == "distill")
    assert trained["options"]["student"] == student
    report = json.loads((Path(told["path"]) / "reports" / "distill.json").read_text())
    assert report["metrics"]["right_is"] == "labels"
    assert len(report["tables"]["history"]) > 2
    again = cli(*words)
    assert again.document["unchanged"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--prune", "50%", "--set", "prune.pattern=unstructured"), ("skips zeros", "--force")),
        (("--prune", "50%", "--set", "prune.layers=1", "--force"), ("force is for masks",)),
        (("--student", "small.py:Small", *TRAIN, "--set", "distill.alpha=1", "--set", "distill.temperature=3"),
         ("temperature",)),
    ],
)  # fmt: skip
def test_what_competes_is_held_to_the_same_rules(cli, student, given, words):
    refused(cli(*MODEL, *given, "--auto", "--dry-run"), *words)
