"""`--ranges`: what one run's calibration found serves another run, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MODEL = """
import torch


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()


def trained_on():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()


def other():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4)).eval()
"""
# A target that is not here is not timed.
WORDS = ("--data", "rows.npz", "--max-drop", "none", "--target", "a100", "--json")
STATIC = ("--int8", "--set", "quantize.operators=weighted")


@pytest.fixture
def rows(place):
    from torch import tensor

    (place / "model.py").write_text(MODEL)
    namespace: dict = {}
    exec(compile(MODEL, "model.py", "exec"), namespace)  # noqa: S102 - the text above
    x = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    labels = namespace["net"]()(tensor(x)).argmax(1).numpy()
    np.savez(place / "rows.npz", x=x, labels=labels)
    return place


def reports(told):
    return Path(told["path"]) / "reports"


def report_of(told):
    return json.loads((reports(told) / "quantize.json").read_text())


def test_ranges_of_one_run_serve_another(rows, cli):
    first = cli("optimize", "model.py:net", "--name", "first", "--calibration-method", "mse", *STATIC, *WORDS)
    assert first.code == 0, first.err
    found = report_of(first.document)
    assert found["metrics"]["calibration_method"] == "mse"
    table = {row["tensor"]: row for row in found["tables"]["found_ranges"]}
    assert all(row["low"] <= row["high"] for row in table.values())
    handed = reports(first.document) / "quantize.json"

    again = cli("optimize", "model.py:net", "--name", "again", "--ranges", str(handed), *STATIC, *WORDS)
    assert again.code == 0, again.err
    assert "calibrating" not in again.err
    assert again.document["model"]["digest"] == first.document["model"]["digest"]
    assert report_of(again.document)["tables"]["found_ranges"] == found["tables"]["found_ranges"]

    stale = cli("optimize", "model.py:trained_on", "--ranges", str(handed), *STATIC, *WORDS)
    assert stale.code == 2
    assert "found on other weights" in stale.document["error"]["message"]
    assert "calibration_weights" in stale.document["error"]["hint"]

    told = cli("explain", "first", "--json").document["calibration"]
    assert told["method"] == "mse"
    assert told["ranges"] == found["tables"]["found_ranges"]
    assert "ranges by mse on" in " ".join(cli("explain", "first").err.split())

    # By hand, a range half as wide: the file's content counts, not its name.
    for row in found["tables"]["found_ranges"]:
        row["low"], row["high"] = row["low"] / 2, row["high"] / 2
    handed = rows / "ranges.json"
    handed.write_text(json.dumps({"tables": {"found_ranges": found["tables"]["found_ranges"]}}))
    narrow = cli("optimize", "model.py:net", "--name", "narrow", "--ranges", str(handed), *STATIC, *WORDS)
    assert narrow.code == 0, narrow.err
    assert narrow.document["model"]["digest"] != first.document["model"]["digest"]

    other = cli("optimize", "model.py:other", "--ranges", str(handed), *STATIC, *WORDS)
    assert other.code == 2
    assert "has no range of 'tanh'" in other.document["error"]["message"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "JSON"),
        ('{"tables": {}}', "no found_ranges"),
        ('{"tables": {"found_ranges": [{"tensor": "x", "low": 1, "high": 0}]}}', "low 1 is above high 0"),
        ('{"tables": {"found_ranges": [{"tensor": "x", "low": "NaN", "high": 0}]}}', "finite"),
        ('{"tables": {"found_ranges": [{"low": 0, "high": 1}]}}', "tensor"),
    ],
)
def test_what_is_no_range_table_is_refused(rows, cli, text, said):
    if text is not None:
        (rows / "ranges.json").write_text(text)
    done = cli("optimize", "model.py:net", "--ranges", "ranges.json", *STATIC, *WORDS)
    assert done.code == 2
    assert said in done.document["error"]["message"], done.document
    assert "quantize.json" in done.document["error"]["hint"]
    assert not (rows / "artifacts").exists() or not list((rows / "artifacts").rglob("artifact.json"))
