"""A native library that crashes under one candidate costs that candidate; a crash that does not come back, a note."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

CODE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 4))
"""
# Python imports it as it starts: launches of one backend end as a library that crashes would end them.
STARTED = """
import json, os, sys
from pathlib import Path

words = sys.orig_argv
if "mlpack.engine.child" in words:
    job = json.loads(Path(words[words.index("mlpack.engine.child") + 1], "job.json").read_text())
    struck = job["call"] == "mlpack.stages.turns:block" and job["arguments"]["model"]["backend"] == os.environ["STRIKE"]
    marks = Path(os.environ["MARKS"])
    if struck and len(list(marks.iterdir())) < int(os.environ["TIMES"]):
        (marks / str(os.getpid())).touch()
        os.abort()

class Aborting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("ABORT_AT"):
            os.abort()

sys.meta_path.insert(0, Aborting())
"""
METRIC = """
import os

import numpy as np

def right(outputs, labels):
    logits = next(iter(outputs.values()))
    if not np.allclose(logits.max(1), labels[:, 1], atol=1e-3):
        os.abort()
    return (logits.argmax(1) == labels[:, 0]).astype(float)
"""
NEAR = """
import numpy as np

def near(outputs, labels):
    return np.isclose(next(iter(outputs.values())).max(1), labels[:, 1], atol=1e-4).astype(float)
"""
PLAIN = ("--data", "data.npz")
BY_ONNXRUNTIME = (*PLAIN, "--backend", "onnxruntime")
SHORT = ("--set", "profile_latency.launches=1", "--set", "profile_latency.batches=[1]")

OPTIMIZE = ("optimize", "net.py:model", "--max-drop", "5pt", "--target", "cpu", *SHORT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The model, its data, and one cache."""
    import torch

    tmp_path = tmp_path_factory.mktemp("crashing")
    (tmp_path / "net.py").write_text(CODE)
    spec = {}
    exec(CODE, spec)  # noqa: S102 - the model that this file wrote
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32))
    with torch.inference_mode():
        logits = spec["model"]()(x)
    np.savez(tmp_path / "data.npz", input=x.numpy(), labels=logits.argmax(1).numpy())
    both = torch.stack([logits.argmax(1), logits.amax(1)], dim=1)
    np.savez(tmp_path / "both.npz", input=x.numpy(), labels=both.numpy())
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(STARTED)
    (tmp_path / "right.py").write_text(METRIC)
    (tmp_path / "near.py").write_text(NEAR)
    return tmp_path


@pytest.fixture
def run(place, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}

    def call(*words, strike="", times=1000, abort_at="", command=OPTIMIZE):
        # What was timed before would not be timed again.
        shutil.rmtree(place / "cache" / "choices", ignore_errors=True)
        done = subprocess.run(
            [
                sys.executable, "-c", "from mlpack.cli.app import main; main()", *command, "--json",
                *(words or PLAIN),
            ],
            cwd=place, capture_output=True, text=True, check=False,
            env={
                **kept, "MLPACK_CACHE": str(place / "cache"), "PYTHONPATH": str(place / "start"),
                "STRIKE": strike, "TIMES": str(times), "MARKS": str(tmp_path),
                "ABORT_AT": abort_at,
            },
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout), done.stderr

    return call


@pytest.mark.parametrize(("crashes", "left"), [("openvino", "onnxruntime"), ("onnxruntime", "openvino")])
def test_candidates_that_crash_as_they_are_timed_are_lost_and_the_others_stay(run, crashes, left):
    code, told, said = run(strike=crashes)
    assert code == 0, said
    assert told["model"]["backend"] == left
    lost = [each for each in told["candidates"] if each["backend"] == crashes]
    assert lost
    for each in lost:
        assert "cannot be timed: a native library ended the process (SIGABRT" in each["why"]


def test_where_all_crash_the_reason_is_told(run):
    code, told, said = run(*BY_ONNXRUNTIME, strike="onnxruntime")
    assert code == 4, said
    assert told["error"]["kind"] == "StageFailed"
    assert "in onnxruntime cannot be timed: a native library ended the process (SIGABRT" in told["error"]["message"]


def test_a_launch_that_crashed_once_is_launched_again_and_told(run):
    code, told, said = run(*BY_ONNXRUNTIME, strike="torch", times=1)
    assert code == 0, said
    assert any(
        "baseline: a native library ended 1 launch" in note for row in told["latency"] for note in row["notes"]
    ), told["latency"]


def test_a_candidate_that_crashes_as_it_is_scored_is_lost(run):
    code, told, said = run("--data", "both.npz", "--metric", "right.py:right")
    assert code == 0, said
    lost = {each["numerics"] for each in told["candidates"] if "a native library ended" in each["why"]}
    assert "int8" in lost
    assert "fp32" not in lost


def test_a_crash_in_a_diagnosis_ends_the_milder_forms_and_not_the_search(run):
    code, told, said = run(
        "--data", "both.npz", "--metric", "near.py:near", "--int8", abort_at="mlpack.quantization.sensitivity"
    )
    assert code == 5, said
    assert told["error"]["kind"] == "GateFailed"
    assert "no further milder forms of" in said
    assert "a native library ended the process (SIGABRT" in said


def test_a_comparison_with_what_crashes_says_so(run):
    code, made, said = run(*PLAIN, "--backend", "openvino")
    assert code == 0, said
    bench = ("bench", "net.py:model", "--launches", "2", "--seconds", "0.02")
    code, told, said = run(*PLAIN, "--against", made["path"], strike="openvino", command=bench)
    assert code == 4, said
    assert told["error"]["kind"] == "StageFailed"
    assert "in openvino cannot be timed: a native library ended the process (SIGABRT" in told["error"]["message"]
