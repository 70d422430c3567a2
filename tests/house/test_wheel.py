"""The wheel works by itself: installed elsewhere, with no checkout nearby, it optimizes and packages a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new environment with the wheel; libraries come from the running environment, mlpack does not."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, cwd=place)
    (wheel,) = (place / "dist").glob("*.whl")
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # A plain path is searched and its own .pth files are not run, so an editable mlpack there stays out.
    libraries = sysconfig.get_paths()["purelib"]
    told = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (Path(told.stdout.strip()) / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    return place / "env" / "bin"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def mlpack(installed, elsewhere):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLPACK_", "PYTHON"))}
    settings = {**kept, "MLPACK_CACHE": str(elsewhere / "cache")}

    def call(*words):
        command = [str(installed / "mlpack"), *words]
        done = subprocess.run(command, cwd=elsewhere, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stderr}"
        return done.stdout

    return call


def test_mlpack_comes_from_the_wheel(installed, elsewhere, mlpack):
    where = [str(installed / "python"), "-c", "import mlpack, torch; print(mlpack.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, check=True, capture_output=True, text=True).stdout
    assert found.startswith(str(installed.parent))
    assert mlpack("--version").startswith("mlpack ")


def test_the_catalogue_is_inside(mlpack):
    names = {target["name"] for target in json.loads(mlpack("targets", "--json"))["targets"]}
    assert {"cpu", "a100", "h100"} <= names


def test_the_recipes_are_inside(mlpack):
    told = json.loads(mlpack("recipes", "--json"))["recipes"]
    assert {recipe["name"] for recipe in told} == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert all(recipe["description"] for recipe in told)


@pytest.fixture(scope="module")
def optimized(elsewhere, mlpack):
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()
    features = torch.randn(400, 16)
    with torch.inference_mode():
        labels = net(features).argmax(1)
    dynamic = {"input": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(net, (features[:4],), dynamic_shapes=dynamic), elsewhere / "tiny.pt2")
    np.savez(elsewhere / "tiny.npz", input=features.numpy(), labels=labels.numpy())
    short = ("--set", "profile_latency.launches=2", "--set", "profile_latency.seconds=0.05")
    words = ("optimize", "tiny.pt2", "--data", "tiny.npz", "--max-drop", "5%", "--backend", "onnxruntime", *short)
    return json.loads(mlpack(*words, "--json"))


def test_it_optimizes(optimized):
    assert optimized["accuracy"]["verdict"] in {"pass", "likely"}
    assert optimized["model"]["backend"] == "onnxruntime"


@pytest.mark.parametrize(
    ("runtime", "file"), [("fastapi", "server/app.py"), ("triton", "model_repository/tiny/config.pbtxt")]
)
def test_it_packages(runtime, file, optimized, elsewhere, mlpack):
    mlpack("package", "tiny", "--runtime", runtime, "--out", f"served-{runtime}")
    assert (elsewhere / f"served-{runtime}" / file).is_file()
    assert (elsewhere / f"served-{runtime}" / "Dockerfile").is_file()
