"""What a package says of its image: the Dockerfile, all that is installed, and the bill of materials."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from tiny_artifacts import make

from mlpack.core.runtime import PackageOptions
from mlpack.runtimes import RUNTIMES
from mlpack.runtimes.requirements import needed_by

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino"}
A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8", "accuracy__simulated": True,
        "model__backend_options": {"threads": 2, "graph_optimizations": "off"}, "latency": []}  # fmt: skip
CASES = {
    "fastapi": ("fastapi", {}),
    "fastapi with openvino": ("fastapi", OPENVINO),
    "triton": ("triton", {}),
    "torchserve": ("torchserve", {}),
    "triton with openvino": ("triton", OPENVINO),
    "triton on a card": ("triton", A100),
}


@pytest.fixture(params=CASES)
def layout(request, tmp_path):
    runtime, changes = CASES[request.param]
    return dict(RUNTIMES[runtime].layout(make(tmp_path, **changes), PackageOptions()))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing(layout):
    done = subprocess.run([HADOLINT, "-"], input=layout["Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    worse = layout["Dockerfile"].replace("USER ", "RUN sudo ls\nUSER ")
    assert subprocess.run([HADOLINT, "-"], input=worse, capture_output=True, text=True, check=False).returncode == 1


def test_everything_is_pinned(layout):
    """Hadolint misses `pip install -r` and base images in an ARG."""
    image = re.search(r"^ARG BASE_IMAGE=(\S+)$", layout["Dockerfile"], re.MULTILINE)[1]
    assert re.fullmatch(r"\S+:[\d.]+\S*", image), "a tag with a version, never latest"
    words = re.findall(r"pip3? install (.*)$", layout["Dockerfile"], re.MULTILINE)
    installed = [word for line in words for word in line.split() if not word.startswith("-")]
    listed = layout.get("requirements.txt", "").splitlines()
    for each in [word for word in installed if word != "requirements.txt"] + [
        line for line in listed if line and not line.startswith("#")
    ]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+", each), each


def test_the_bill_lists_what_is_installed(layout):
    bill = json.loads(layout["sbom.cdx.json"])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = layout.get("requirements.txt", layout["Dockerfile"])
    for each in bill["components"]:
        assert re.search(rf"(?m)(^|\s){re.escape(each['name'])}=={re.escape(each['version'])}(\s|$)", listed)
        assert each["purl"] == f"pkg:pypi/{each['name'].lower().replace('_', '-')}@{each['version']}"
    assert len(bill["components"]) == len(re.findall(r"(?m)(?:^|\s)[\w.-]+==", listed))


def test_what_is_needed_in_turn_is_found():
    found = needed_by({"fastapi": metadata.version("fastapi")})
    assert {"starlette", "pydantic", "pydantic-core", "anyio", "idna"} <= found.keys()
    assert "fastapi" not in found
    assert all(version == metadata.version(name) for name, version in found.items())
    assert not {"pytest", "uvicorn"} & found.keys(), "extras that nobody asked for"


def test_what_another_version_needs_is_not_guessed():
    assert needed_by({"fastapi": "0.1.0"}) == {}
    assert needed_by({"no-such-library": "1.0"}) == {}


def test_a_bill_says_where_it_is_incomplete(tmp_path):
    """Triton's images have numpy 1, TorchServe is not installed here: what these need is not known."""
    for runtime, changes, unknown in (
        ("fastapi", {}, []), ("triton", OPENVINO, ["pkg:pypi/numpy@1.26.4"]), ("triton", {}, []),
        ("torchserve", {}, ["pkg:pypi/torchserve@0.12.0"]),
    ):  # fmt: skip
        stored = make(tmp_path / f"{runtime}{len(changes)}", **changes)
        bill = json.loads(RUNTIMES[runtime].layout(stored, PackageOptions())["sbom.cdx.json"])
        found = bill.get("compositions", [])
        expected = {"aggregate": "incomplete", "assemblies": ["image"], "dependencies": unknown}
        assert found == ([expected] if unknown else []), runtime
        refs = {each["bom-ref"] for each in (*bill["components"], bill["metadata"]["component"])}
        assert all({*each["assemblies"], *each["dependencies"]} <= refs for each in found)
