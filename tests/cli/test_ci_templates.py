"""The templates in ci/: what they run is run here, in a shell, on artifacts that pass and that do not."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

CI = Path(__file__).resolve().parents[2] / "ci"
N = 3000


@pytest.fixture
def artifacts(place, cli):
    """tiny-mlp@1, its baseline file, and tiny-mlp@2: worse by as many answers as asked for."""
    from tiny_artifacts import make

    def published(flips):
        one, two = np.ones(N, np.uint8), np.ones(N, np.uint8)
        two[:flips] = 0
        judged = {"accuracy__dataset": "d" * 64, "accuracy__part": "p" * 64}
        make(place / "artifacts", kept={"baseline": one, "optimized": one}, **judged)
        make(place / "artifacts", version=2, kept={"baseline": one, "optimized": two}, **judged)
        (place / "ci").mkdir()
        assert cli("gate", "tiny-mlp@1", "--write-baseline", "ci/reviews-baseline.json").code == 0
        return place

    return published


def run(script, folder, **variables):
    """As a runner does it: bash that stops at the first failure, with mlpack on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", "-eo", "pipefail", "-c", script]
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )  # fmt: skip


@pytest.mark.parametrize(("flips", "code", "verdict"), [(0, 0, "pass"), (200, 5, "fail")])
def test_the_github_action(artifacts, flips, code, verdict):
    folder = artifacts(flips)
    action = yaml.safe_load((CI / "action.yml").read_text())
    given = {
        **{name: each.get("default", "") for name, each in action["inputs"].items()},
        "artifact": "tiny-mlp", "against": "ci/reviews-baseline.json", "arguments": "--no-latency --max-size 1MB",
    }  # fmt: skip
    assert {name for name, each in action["inputs"].items() if each.get("required")} == {"artifact", "against"}
    install, gate = action["runs"]["steps"]
    assert install["if"] == "inputs.install != ''"
    variables = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: given[found[1]], text)
        for name, text in gate["env"].items()
    }
    done = run(gate["run"], folder, GITHUB_OUTPUT=str(folder / "output"), GITHUB_ACTIONS="true", **variables)
    assert done.returncode == code, done.stderr
    assert (folder / "output").read_text() == f"verdict={verdict}\n"
    assert "<testsuite " in (folder / "mlpack-gate.xml").read_text()
    assert ("::error title=" in done.stderr) == (code != 0)


@pytest.mark.parametrize(("flips", "code"), [(0, 0), (200, 5)])
def test_the_gitlab_template(artifacts, flips, code):
    folder = artifacts(flips)
    job = yaml.safe_load((CI / "gitlab-gate.yml").read_text())[".mlpack-gate"]
    given = {"ARTIFACT": "tiny-mlp", "AGAINST": "ci/reviews-baseline.json", "ARGUMENTS": "--no-latency"}
    assert set(given) == set(job["variables"])
    done = run("\n".join(job["script"]), folder, **given)
    assert done.returncode == code, done.stderr
    assert (folder / job["artifacts"]["reports"]["junit"]).is_file()
    assert (folder / job["artifacts"]["paths"][0]).is_file()


@pytest.mark.parametrize(("flips", "codes"), [(0, [0, 0]), (200, [0, 5])])
def test_the_pre_commit_example(artifacts, flips, codes):
    folder = artifacts(flips)
    (repository,) = yaml.safe_load((CI / "pre-commit-example.yaml").read_text())["repos"]
    entries = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    words = [" ".join("tiny-mlp" if word == "reviews" else word for word in entry) for entry in entries]
    assert [run(each, folder).returncode for each in words] == codes
