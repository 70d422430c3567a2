"""Artifacts that torch runs without the user's code: made, loaded elsewhere, and refused by servers of ONNX models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpack.core.machine import cpp_compiler

# Large enough not to be slower than it was, which would be refused.
DIGITS = Path(__file__).parents[2] / "sample_models" / "digits-resnet"
QUICK = ("--threads", "1", "--set", "profile_latency.launches=2", "--set", "profile_latency.seconds=0.05")
LOADED = {
    "aotinductor": "torch._inductor.aoti_load_package(sys.argv[1])",
    "torchscript": "torch.jit.load(sys.argv[1])",
}


@pytest.fixture
def mine(place):
    """The user's folder: a factory's file, its weights, and data."""
    for name in ("model.py", "weights.safetensors", "eval.npz"):
        shutil.copyfile(DIGITS / name, place / name)
    return place


def answers_without_the_code(artifact, backend, rows):
    program = (
        "import sys, numpy as np, torch\n"
        f"model = {LOADED[backend]}\n"
        "(made,) = model(torch.from_numpy(np.load('rows.npy')))\n"
        "np.save('made.npy', made.detach().numpy())\n"
    )
    entry = next((artifact / "model").iterdir())
    np.save(artifact.parent / "rows.npy", rows)
    words = [sys.executable, "-I", "-c", program, str(entry)]
    done = subprocess.run(words, cwd=artifact.parent, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(artifact.parent / "made.npy")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aotinductor", "torchscript"])
def test_an_artifact_is_loaded_where_the_users_code_is_not(cli, mine, backend):
    if backend == "aotinductor" and cpp_compiler() is None:
        pytest.skip("there is no C++ compiler")
    # The one kind of numerics: compiling takes a while.
    stage = {"aotinductor": "compile_ahead", "torchscript": "trace_module"}[backend]
    words = ("optimize", "model.py:model", "--data", "eval.npz", "--backend", backend, "--name", "tiny", *QUICK)
    done = cli(*words, "--no-limit", "--set", f"{stage}.numerics=fp32", "--json")
    assert done.code == 0, done.err
    model = done.document["model"]
    assert (model["format"], model["backend"], model["numerics"]) == (backend, backend, "fp32")
    assert done.document["accuracy"]["backend"] == backend
    assert abs(done.document["accuracy"]["drop"]) < 0.01
    for name in ("model.py", "weights.safetensors"):
        (mine / name).unlink()
    shutil.rmtree(mine / "cache")
    artifact = Path(done.document["path"])
    with np.load(artifact / "golden" / "inputs.npz") as given, np.load(artifact / "golden" / "outputs.npz") as recorded:
        made = answers_without_the_code(artifact, backend, given["image"])
        np.testing.assert_allclose(made, recorded[recorded.files[0]], rtol=1e-4, atol=1e-5)
    assert cli("predict", "tiny", "--data", "eval.npz", "--out", "y.npz").code == 0
    refused = cli("package", "tiny", "--runtime", "fastapi")
    assert refused.code == 2
    assert "packages serve ONNX models only" in refused.err
    assert "mlpack package" not in cli("show", "tiny").err


def test_what_torch_cannot_be_asked_for_is_refused_before_anything_runs(cli, mine, monkeypatch):
    words = ("optimize", "model.py:model", "--data", "eval.npz", "--json", "--backend")
    asked = {
        ("torch_compile",): "which no artifact is",
        ("torch",): "which no artifact is",
        ("aotinductr",): "unknown backend",
        ("aotinductor", "--int8"): "not int8",
        ("aotinductor", "--target", "a100"): "compiles for the CPU that it runs on",
    }
    for more, told in asked.items():
        done = cli(*words, *more)
        assert done.code == 2, done.err
        assert told in done.document["error"]["message"]
    assert cli(*words, "aotinductr").document["error"]["hint"] == "did you mean 'aotinductor'?"


def test_without_a_compiler_the_plan_says_so_and_the_run_is_refused(cli, mine, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    words = ("model.py:model", "--data", "eval.npz", "--backend", "aotinductor", "--json")
    (lacking,) = cli("plan", *words).document["lacks"]
    assert "there is no C++ compiler" in lacking
    done = cli("optimize", *words)
    assert (done.code, done.document["error"]["kind"]) == (3, "MissingLibrary")
    told = next(each for each in cli("doctor", "--json").document["checks"] if each["name"] == "C++ compiler")
    assert (told["status"], told["hint"]) == ("warning", "apt-get install g++")


def test_of_all_backends_every_way_is_planned_and_options_reach_all_of_them(cli, mine):
    words = ("plan", "model.py:model", "--data", "eval.npz", "--json", "--backend", "all")
    stages = [each["stage"] for each in cli(*words).document["steps"]]
    assert {"export", "quantize", "compile_ahead", "trace_module"} < set(stages)
    assert stages.count("compile") == 3
    set_apart = cli(*words, "--set", "trace_module.numerics=fp32").document["steps"]
    assert next(each for each in set_apart if each["stage"] == "trace_module")["options"] == {"numerics": "fp32"}
    assert "trace_module" not in {each["stage"] for each in cli(*words, "--int8").document["steps"]}
