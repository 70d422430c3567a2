"""`mlpack explain`: the noisiest layer is found, and the command that it advises helps."""

from __future__ import annotations

import shlex
import shutil

import numpy as np
import pytest

import mlpack
from mlpack.errors import ModelError

pytestmark = pytest.mark.slow


@pytest.fixture
def outlier(tmp_path, monkeypatch):
    """One channel, a thousand times larger than its neighbours, which the last layer hardly listens to."""
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.middle, self.last = (torch.nn.Linear(*size) for size in ((16, 64), (64, 64), (64, 4)))

        def forward(self, x):
            return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))

    net = Net().eval()
    with torch.no_grad():
        net.middle.weight[0] *= 3000
        net.last.weight[:, 0] *= 1e-5
        rows = torch.randn(1200, 16)
        net.last.bias -= net(rows).mean(0)
        labels = net(rows).argmax(1)
    dynamic = {"x": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(net, (rows[:4],), dynamic_shapes=dynamic), "outlier.pt2")
    np.savez("rows.npz", x=rows.numpy(), labels=labels.numpy())
    return tmp_path


RECIPE = """
name: outlier
source: {model: outlier.pt2}
data: {evaluation: rows.npz}
target: cpu
limit: none
steps:
  - export: {}
  - simplify: {}
  - quantize: {numerics: int8, method: static, operators: weighted}
  - compile: {backend: onnxruntime}
accuracy: {check_accuracy: {metric: top1}}
latency: {profile_latency: {launches: 2, seconds: 0.02, batches: [1]}}
"""


def optimize(folder, text=RECIPE):
    (folder / "outlier.yaml").write_text(text)
    mlpack.optimize("outlier.yaml")


def test_the_noisy_layer_is_found_and_the_advice_helps(outlier):
    optimize(outlier)
    found = mlpack.explain("outlier@1")
    assert found.drop > 0
    worst = found.costliest[0]
    assert "last" in (worst.module or worst.layer)
    assert worst.own_sqnr < found.costliest[1].own_sqnr - 10
    assert [each.own_sqnr for each in found.costliest] == sorted(each.own_sqnr for each in found.layers)
    words = shlex.split(found.advice.command)
    assert words[:2] == ["mlpack", "optimize"]
    assert (worst.module or worst.layer) in words[-1]
    mlpack.optimize(words[2], settings=[word for word in words[3:] if word != "--set"])
    better = mlpack.explain("outlier@2")
    assert better.drop < found.drop
    [before], [after] = found.outputs.values(), better.outputs.values()
    assert after > before + 10


def test_the_graph_is_made_again_where_the_cache_is_gone(outlier):
    optimize(outlier)
    first = mlpack.explain("outlier")
    shutil.rmtree(outlier / "cache")
    assert mlpack.explain("outlier") == first
    shutil.rmtree(outlier / "cache")
    (outlier / "outlier.pt2").unlink()
    with pytest.raises(ModelError, match="has to be made again: there is no file"):
        mlpack.explain("outlier")


def test_what_was_not_quantized_has_no_layers_and_says_why(outlier):
    optimize(outlier, "\n".join(line for line in RECIPE.splitlines() if "quantize" not in line))
    found = mlpack.explain()
    assert found.layers == ()
    assert found.reason == "it was not quantized: fp32, as the original"
    assert found.components
    assert "--sweep" in found.advice.command
