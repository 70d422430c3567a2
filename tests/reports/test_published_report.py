"""Every published artifact has its report, listed among its files, and `mlpack report` says the same."""

from __future__ import annotations

import numpy as np
import pytest

import mlpack

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
source: {model: tiny.pt2}
data: {evaluation: tiny.npz}
target: cpu
limit: 5%
steps:
  - export: {}
  - compile: {backend: onnxruntime}
accuracy: {check_accuracy: {metric: top1}}
latency: {profile_latency: {launches: 2, seconds: 0.05, batches: [1]}}
"""


def test_optimize_publishes_a_report(place):
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()
    features = torch.randn(400, 16)
    with torch.inference_mode():
        net[2].bias -= net(features).mean(0)  # every label about as often: a note on the data would be a warning
        labels = net(features).argmax(1)
    dynamic = {"input": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(net, (features[:4],), dynamic_shapes=dynamic), "tiny.pt2")
    np.savez("tiny.npz", input=features.numpy(), labels=labels.numpy())
    (place / "tiny.yaml").write_text(RECIPE)
    stored = mlpack.optimize("tiny.yaml").stored
    assert "report.html" in stored.artifact.files
    mlpack.verify("tiny")
    published = (stored.path / "report.html").read_text(encoding="utf-8")
    again = mlpack.report("tiny", out="again.html").path.read_text(encoding="utf-8")
    assert "<h1>tiny</h1>" in published
    assert "<h1>tiny@1</h1>" in again
    assert published.replace("<h1>tiny</h1>", "<h1>tiny@1</h1>").replace("<title>tiny:", "<title>tiny@1:") == again
    assert 'data-kind="launches"' in again
