"""--int4, end to end: smaller, judged, explained; what it cannot keep is refused.

The targets are CPUs that are not here, so that nothing rests on how fast this machine happens to be.
"""

import json

import numpy as np
import onnx
import pytest

NET = """
import torch
from torch import nn

class Net(nn.Module):
    '''Looks tokens up, mixes them, and decides: two thirds of its bytes are a table.'''

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(2000, 64)
        self.up = nn.Linear(64, 256)
        self.down = nn.Linear(256, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, tokens):
        x = self.table(tokens)
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x.mean(1))

def model():
    torch.manual_seed(0)
    return Net()
"""
INPUT = ("--input", "tokens=int64:batch,6")
ELSEWHERE = ("--target", "graviton4", "--backend", "onnxruntime")


@pytest.fixture
def words(place):
    """The net, and rows whose labels are its own answers."""
    import importlib.util

    import torch

    path = place / "net.py"
    path.write_text(NET)
    spec = importlib.util.spec_from_file_location("net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokens = np.random.default_rng(0).integers(0, 2000, (700, 6))
    with torch.inference_mode():
        labels = module.model().eval()(torch.from_numpy(tokens)).argmax(1).numpy()
    np.savez(place / "data.npz", tokens=tokens, labels=labels)
    return ("net.py:model", *INPUT, "--data", "data.npz", "--name", "net")


def graph_of(place):
    return onnx.load(place / "artifacts" / "net" / "1" / "model" / "model.onnx").graph


@pytest.mark.slow
def test_int4_is_an_eighth_of_the_size_and_says_what_it_costs(cli, place, words):
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--max-drop", "12%", "--json")
    assert done.code == 0, done.err
    told = done.document
    assert told["model"]["numerics"] == "int4"
    assert told["model"]["numerics_share"] == 1.0
    assert told["model"]["quantization"]["details"]["block"] == 32
    assert told["accuracy"]["verdict"] in {"pass", "likely"}
    assert told["accuracy"]["limit_text"] == "12%"
    # Five bits each with scales and zero points; biases and the graph come on top.
    assert told["model"]["size_bytes"] < told["baseline"]["size_bytes"] / 5
    tried = {each["label"] for each in told["candidates"] if each["numerics"] == "int4"}
    assert tried == {f"int4 {method} (blocks of 32) · onnxruntime" for method in ("rtn", "hqq", "gptq")}
    kinds = [node.op_type for node in graph_of(place).node]
    assert kinds.count("MatMulNBits") == 3
    assert "GatherBlockQuantized" in kinds
    weights = json.loads((place / "artifacts/net/1/reports/quantize.json").read_text())["tables"]["weights"]
    assert {row["numerics"] for row in weights if row["bytes_before"] > 5000} == {"int4"}
    explained = cli("explain", "net", "--json").document
    assert {each["module"] for each in explained["layers"]} >= {"table", "up", "down", "head"}
    assert "int4" in (place / "artifacts/net/1/report.html").read_text()
    assert cli("predict", "net", "--data", "data.npz", "--out", "answers.npz").code == 0


@pytest.mark.slow
def test_without_data_weights_are_rounded_by_themselves_and_nothing_is_claimed(cli, place, words):
    done = cli("optimize", words[0], *INPUT, *ELSEWHERE, "--int4", "--name", "net", "--json")
    assert done.code == 0, done.err
    assert done.document["accuracy"]["verdict"] == "none"
    assert done.document["model"]["quantization"]["method"] == "hqq"
    assert any(node.op_type == "MatMulNBits" for node in graph_of(place).node)


@pytest.mark.slow
def test_the_smallest_of_all_is_in_four_bits_where_the_limit_lets_it(cli, words):
    done = cli("optimize", *words, *ELSEWHERE, "--smallest", "--max-drop", "12%", "--json")
    assert done.code == 0, done.err
    told = done.document
    assert told["model"]["numerics"] == "int4"
    others = [each["size_bytes"] for each in told["candidates"] if each["numerics"] != "int4"]
    assert min(others) > told["model"]["size_bytes"]


@pytest.mark.slow
def test_where_four_bits_miss_the_limit_the_layers_that_cost_most_get_eight(cli, place, words):
    """One layer's columns are three orders of magnitude apart: no block of it holds both."""
    path = place / "net.py"
    path.write_text(
        NET.replace(
            "    return Net()\n",
            "    net = Net()\n    with torch.no_grad():\n        net.down.weight[:, ::16] *= 1000\n"
            "        net.up.weight[::16] /= 1000\n        net.up.bias[::16] /= 1000\n    return net\n",
        )
    )
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--max-drop", "4%", "--json", "--set", "quantize.method=hqq")
    labels = [each["label"] for each in done.document.get("candidates", ())]
    assert done.code == 0, done.err
    assert any("in int8" in label for label in labels), labels
    assert done.document["model"]["quantization"]["details"]["wide"]


@pytest.mark.slow
def test_what_cannot_be_kept_names_the_limit_that_would_pass(cli, words):
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--max-drop", "0.01%", "--set", "quantize.block=128",
               "--set", "quantize.method=rtn", "--json")  # fmt: skip
    assert done.code in {5, 6}
    if done.code == 5:
        assert "int4" in done.document["error"]["message"]
        assert "--max-drop" in done.document["error"]["hint"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("quantize.block=48",), "block"),
        (("quantize.method=static",), "method: static is not for int4"),
        (("quantize.method=rtn", "quantize.damping=0.1"), "damping is for method: gptq"),
        (("quantize.operators=all",), "operators is for int8"),
        (("quantize.embeddings=true", "target"), "no int4 tables"),
    ],
)
def test_bad_options_are_wrong_usage(cli, words, settings, said):
    target = ("--target", "a100") if "target" in settings else ELSEWHERE
    told = [part for setting in settings if setting != "target" for part in ("--set", setting)]
    done = cli("optimize", *words, *target, "--int4", *told, "--dry-run", "--json")
    assert done.code == 2, done.err
    assert said in done.document["error"]["message"]


def test_a_module_that_is_not_there_is_named_with_the_nearest(cli, words):
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--set", "quantize.wide=[dwn]", "--set", "quantize.method=rtn")
    assert done.code == 2
    assert "quantize.wide: nothing of this graph lies in 'dwn'" in done.err
    assert "did you mean 'down'?" in " ".join(done.err.split())
