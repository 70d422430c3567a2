"""`--prune` from the command line: smaller, told in every report, compared with the original; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mlpack.api.pruning import pruned_steps
from mlpack.core.recipe import DataSpec

pytest.importorskip("torch_pruning")

SAMPLES = Path(__file__).parents[2] / "sample_models"
DIGITS = SAMPLES / "digits-resnet"
QUICK = (
    "--threads", "1", "--set", "profile_latency.launches=2", "--set", "profile_latency.seconds=0.05",
    "--set", "profile_latency.components=false",
)  # fmt: skip


@pytest.fixture
def mine(place):
    for name in ("model.py", "weights.safetensors", "eval.npz"):
        shutil.copyfile(DIGITS / name, place / name)
    return place


def words(*more):
    return ("optimize", "model.py:model", "--data", "eval.npz", "--name", "digits", *more)


@pytest.mark.slow
def test_a_pruned_artifact_tells_what_is_gone(cli, mine):
    done = cli(*words("--prune", "30%", "--backend", "onnxruntime", "--no-limit", *QUICK))
    assert done.code == 0, done.err
    assert "of the FLOPs" in done.err
    assert "are gone" in " ".join(done.err.split())
    (folder,) = (mine / "artifacts" / "digits").glob("1")
    artifact = json.loads((folder / "artifact.json").read_text())
    assert [each["stage"] for each in artifact["lineage"]][:3] == ["load", "prune", "export"]
    assert artifact["lineage"][1]["options"]["amount"] == 0.3
    report = json.loads((folder / "reports" / "prune.json").read_text())
    assert report["metrics"]["flops_gone"] >= 0.295
    page = (folder / "report.html").read_text()
    assert 'id="pruned"' in page
    assert report["tables"]["modules"][0]["module"] in page
    # The drop is against the model that was handed in.
    assert artifact["accuracy"]["baseline"] > 0.98
    assert artifact["baseline"]["backend"] == "torch"
    assert artifact["model"]["size_bytes"] < 0.85 * artifact["baseline"]["size_bytes"]
    for command in (("show", "digits"), ("explain", "digits"), ("verify", "digits"), ("diff", "digits@1", "digits@1")):
        assert cli(*command).code == 0
    again = cli(*words("--prune", "30%", "--backend", "onnxruntime", "--no-limit", *QUICK))
    assert "unchanged: still digits@1" in again.err


@pytest.mark.slow
def test_a_limit_that_pruning_misses_says_what_would_help(cli, mine):
    done = cli(*words("--prune", "60%", "--backend", "onnxruntime", "--max-drop", "0.1%", *QUICK))
    assert done.code == 5
    assert "pruned" in done.err
    assert not (mine / "artifacts" / "digits").exists()


@pytest.mark.parametrize("share", ["100%", "0%", "30", "most", "-5%", "130%"])
def test_a_share_that_is_none_is_refused(cli, mine, share):
    done = cli(*words(f"--prune={share}"))
    assert done.code == 2
    assert "hint: --prune 30%" in done.err


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_a_mask_that_gains_nothing_asks_for_force(cli, mine, pattern):
    asked = words("--prune", "50%", "--set", f"prune.pattern={pattern}", "--dry-run")
    done = cli(*asked)
    assert done.code == 2
    assert "--force makes the mask anyway" in done.err
    assert cli(*asked, "--force").code == 0
    assert cli(*words("--force", "--dry-run")).code == 2


def test_the_plan_has_the_step_and_a_recipe_has_its_options(cli, mine):
    done = cli(*words("--prune", "30%", "--dry-run", "--json"))
    assert done.code == 0, done.err
    assert "prune" in json.dumps(done.document)
    (mine / "recipe.yaml").write_text(
        "source: {model: 'model.py:model'}\ndata: {evaluation: eval.npz}\nsteps:\n"
        "- prune: {amount: 1.0}\n- export\n- compile\n"
    )
    refused = cli("plan", "recipe.yaml")
    assert refused.code == 2
    assert "less than 1" in refused.err
    (mine / "recipe.yaml").write_text("source: {model: 'model.py:model'}\nsteps: [export, compile]\n")
    assert cli("optimize", "recipe.yaml", "--prune", "30%").code == 2


def test_what_gives_no_module_is_refused(cli, place):
    net = torch.nn.Linear(4, 3).eval()
    torch.onnx.export(net, (torch.zeros(2, 4),), str(place / "net.onnx"), dynamo=True, verbose=False)
    torch.export.save(torch.export.export(net, (torch.zeros(2, 4),)), place / "net.pt2")
    np.savez(place / "data.npz", input=np.zeros((40, 4), np.float32), labels=np.arange(40) % 3)
    reasons = {"net.onnx": "hand the model in as torch has it", "net.pt2": "has its sizes in every operator"}
    for name, reason in reasons.items():
        done = cli("optimize", name, "--prune", "30%", "--no-limit", *QUICK)
        assert done.code == 2, done.err
        assert reason in done.err


def test_random_rows_tell_pruning_nothing(cli, mine):
    (mine / "recipe.yaml").write_text(
        "source: {model: 'model.py:model'}\ndata: {evaluation: eval.npz, train: 'random:64'}\nsteps:\n"
        "- prune: {amount: 0.3}\n- export\n- compile\n"
    )
    refused = cli("plan", "recipe.yaml")
    assert refused.code == 2
    assert "train: random:64: random rows have no labels" in " ".join(refused.err.split())


def test_the_output_that_is_labelled_is_told_where_labels_count():
    for train, told in (("train.npz", {"output": "scores"}), (None, {})):
        (step,) = pruned_steps("30%", DataSpec(train=train, output="scores"), force=False)
        assert step.options == {"amount": 0.3, **told}
