"""Promises and limits, end to end: what is kept, what is refused, and what the refusal offers instead."""

import numpy as np
import pytest

import mlpack
from mlpack.errors import GateFailed

QUICK = ("profile_latency.launches=2", "profile_latency.seconds=0.05")

OUTLIERS = """
import torch
from torch import nn

class Net(nn.Module):
    '''Decides by small features beside one that is ten thousand times larger: no 8-bit activation range holds both.'''

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(16, 64)
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        return self.head(torch.relu(self.mix(x)))

def model():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.mix.weight[:, 0] = 0.0
    return net
"""

MOSTLY_FLOAT = """
import torch
from torch import nn

class Net(nn.Module):
    '''Nearly all of its work is a product of two activations, which dynamic int8 leaves in float.'''

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        scores = torch.matmul(x, x.transpose(1, 2))
        return self.head(torch.matmul(scores, x).mean(1))

def model():
    torch.manual_seed(0)
    return Net()
"""


def _made(folder, source, shape, scale=None):
    """A factory file and data whose labels are the model's own answers: the original is always right."""
    import importlib.util

    import torch

    path = folder / "net.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = np.random.default_rng(0).standard_normal((600, *shape)).astype(np.float32)
    if scale is not None:
        x[:, 0] *= scale
    with torch.inference_mode():
        labels = module.model().eval()(torch.from_numpy(x)).argmax(1).numpy()
    np.savez(folder / "data.npz", x=x, labels=labels)
    return f"{path}:model", folder / "data.npz"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_int8_that_loses_the_accuracy_is_refused_with_the_better_offer_and_the_limit_that_would_pass(tmp_path, cache):
    model, data = _made(tmp_path, OUTLIERS, (16,), scale=1e4)
    with pytest.raises(GateFailed) as refused:
        mlpack.optimize(
            model, data=data, numerics="int8", backend="onnxruntime", store=tmp_path / "store", settings=QUICK
        )
    assert "int8" in refused.value.message
    assert "over the limit" in refused.value.message
    assert "fp32 · onnxruntime" in refused.value.hint
    assert "--max-drop" in refused.value.hint
    assert refused.value.exit_code == 5
    assert not list((tmp_path / "store").rglob("artifact.json"))

    kept = mlpack.optimize(model, data=data, backend="onnxruntime", store=tmp_path / "store", settings=QUICK)
    assert kept.stored.artifact.model.numerics == "fp32"
    assert kept.stored.artifact.accuracy.drop == 0
    lost = [each for each in kept.stored.artifact.candidates if each.numerics.startswith("int8")]
    assert lost
    assert all(each.why for each in lost)


@pytest.mark.slow
def test_int8_that_covers_little_of_the_compute_breaks_the_promise(tmp_path, cache):
    model, data = _made(tmp_path, MOSTLY_FLOAT, (32, 64))
    with pytest.raises(GateFailed, match=r"only \d% of its compute is int8"):
        mlpack.optimize(
            model,
            data=data,
            numerics="int8",
            max_drop="50%",
            backend="onnxruntime",
            store=tmp_path / "store",
            settings=(*QUICK, "quantize.method=dynamic"),
        )


@pytest.mark.slow
def test_a_repeat_reproduces_the_model_to_the_bit_and_an_unchanged_run_publishes_nothing(tmp_path, monkeypatch):
    model, data = _made(tmp_path, OUTLIERS, (16,))
    digests = []
    for turn in ("one", "two"):
        monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / turn / "cache"))
        done = mlpack.optimize(
            model, data=data, backend="onnxruntime", max_drop="90%", store=tmp_path / turn, settings=QUICK, name="net"
        )
        assert not done.unchanged
        digests.append({each.label: each for each in done.stored.artifact.candidates})
        again = mlpack.optimize(
            model, data=data, backend="onnxruntime", max_drop="90%", store=tmp_path / turn, settings=QUICK, name="net"
        )
        assert again.unchanged
        assert again.stored.artifact.digest == done.stored.artifact.digest
        assert again.recheck is not None
    assert digests[0].keys() == digests[1].keys()
    for label, one in digests[0].items():
        assert one.accuracy == digests[1][label].accuracy, label
        assert one.size_bytes == digests[1][label].size_bytes, label


@pytest.mark.slow
def test_an_nvidia_target_gets_a_symmetric_graph_scored_here_and_no_invented_latency(tmp_path, cache):
    import onnx
    from onnx import numpy_helper

    model, data = _made(tmp_path, OUTLIERS, (16,))
    done = mlpack.optimize(
        model, data=data, numerics="int8", target="a100", max_drop="20%", store=tmp_path / "store", name="net"
    )
    artifact = done.stored.artifact
    assert artifact.accuracy.simulated
    assert artifact.latency[0].speedup is None
    assert "A100" in artifact.latency[0].reason
    script = (done.stored.path / "build-engine.sh").read_text()
    assert "trtexec --onnx=model/model.onnx" in script
    assert "--int8" not in script.replace("no --int8", "")
    graph = onnx.load(done.stored.path / "model" / "model.onnx").graph
    values = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert pairs
    for node in pairs:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
