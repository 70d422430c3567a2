"""A module that was changed is kept beside the code that makes it, and is made again as it was, whoever gave it."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from doors import INPUTS, ZOO, answers, relative, rows_for
from hypothesis import strategies as st

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "sources"))

import tiny_hf
from tiny_net import Net

from mlpack.backends.torch_changed import save_changed
from mlpack.backends.torch_loader import load_inner
from mlpack.core.loader import Loader
from mlpack.errors import ModelError, StageFailed
from mlpack.stages.compile_ahead import CompileAhead
from mlpack.stages.export import Export
from mlpack.stages.trace_module import TraceModule

NET = "features=float32:batch,4"
NET_CODE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent / "sources")!r})
from tiny_net import Net
"""


def of_kind(kind, bench, folder):
    """The tiny net as each loader gives it, and rows for it."""
    torch.manual_seed(0)
    rows = {"features": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    if kind == "hf_folder":
        tiny_hf.make("bert").save_pretrained(folder / "bert")
        rows = tiny_hf.rows("bert", 5)
        return bench.load(folder / "bert", data=bench.data(**rows)), rows
    if kind == "pickled_module":
        torch.save(Net(), folder / "net.pt")
        return bench.load(folder / "net.pt", inputs=(NET,), allow_pickle=True), rows
    (folder / "net.py").write_text(NET_CODE)
    if kind == "factory":
        return bench.load(f"{folder}/net.py:Net", inputs=(NET,)), rows
    torch.save(Net().state_dict(), folder / "net.pt")
    return bench.load(folder / "net.pt", factory=f"{folder}/net.py:Net", inputs=(NET,)), rows


def inner(model):
    return load_inner(model.path, Loader.read(model.path))


def narrower(module):
    """A neuron fewer between two layers: of the net, or of the first MLP of a BERT."""
    if isinstance(module, Net):
        first, last = module.first, module.last
    else:
        layer = module.bert.encoder.layer[0]
        first, last = layer.intermediate.dense, layer.output.dense
    first.weight = torch.nn.Parameter(first.weight[:-1].clone())
    first.bias = torch.nn.Parameter(first.bias[:-1].clone())
    last.weight = torch.nn.Parameter(last.weight[:, :-1].clone())
    first.out_features -= 1
    last.in_features -= 1


def trained(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))


def expected(model, module, rows):
    """What the changed module answers, called as the model's backend does."""
    from mlpack.backends.torch_loader import Flat

    names = [spec.name for spec in model.inputs]
    flat = Flat(module, names, [spec.name for spec in model.outputs])
    with torch.inference_mode():
        made = flat(*(torch.from_numpy(rows[name]) for name in names))
    return {spec.name: tensor.numpy() for spec, tensor in zip(model.outputs, made, strict=True)}


@pytest.mark.parametrize("kind", ["factory", "state_dict", "hf_folder", "pickled_module"])
def test_trained_and_narrowed_it_is_made_again(kind, bench, tmp_path):
    model, rows = of_kind(kind, bench, tmp_path)
    before = answers(model, rows, "torch")
    changed = model
    # Twice: what is changed again is written down beside the original, not beside what was changed before.
    for change in (trained, narrower, trained, narrower):
        module = inner(changed)
        change(module)
        made = save_changed(changed, module, bench.job().out)
        found, wanted = answers(made, rows, "torch"), expected(model, module, rows)
        for name, array in wanted.items():
            assert relative(array, found[name]) < 1e-6
            assert relative(before[name], found[name]) > 1e-3
        assert made.fingerprint() != changed.fingerprint()
        assert {spec.name for spec in made.outputs} == {spec.name for spec in model.outputs}
        changed = made
    record = Loader.read(changed.path).changed
    sizes = [value for numbers in record.surgery.attributes.values() for value in numbers.values()]
    assert len(sizes) == 2, "only the neurons that are gone are written down"
    assert all(path.stat().st_size for path in changed.files())


def test_the_same_change_has_the_same_bytes(bench, tmp_path):
    model, _ = of_kind("factory", bench, tmp_path)
    prints = set()
    for _ in range(2):
        module = inner(model)
        narrower(module)
        prints.add(save_changed(model, module, bench.job().out).fingerprint())
    assert len(prints) == 1


@hypothesis.given(st.lists(st.integers(0, 3), max_size=3, unique=True), st.integers(1, 60))
@hypothesis.settings(max_examples=8)
def test_layers_of_a_list_go_whichever_they_are(tmp_path_factory, gone, width):
    from doors import Bench

    bench = Bench(tmp_path_factory.mktemp("layers"))
    folder = bench.job().out
    (folder / "deep.py").write_text(
        f"import importlib.util, torch\n"
        f"spec = importlib.util.spec_from_file_location('zoo_of_layers', {str(ZOO)!r})\n"
        "zoo = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(zoo)\n"
        "def deep():\n"
        "    torch.manual_seed(0)\n"
        "    net = zoo.Transformer()\n"
        "    net.layers.extend(zoo.Layer(32) for _ in range(2))\n"
        "    return net\n"
    )
    model = bench.load(folder / "deep.py:deep", inputs=(INPUTS["transformer"],))
    module = inner(model)
    for at in sorted(gone, reverse=True):
        del module.layers[at]
    # One of those left is narrower than its neighbours.
    up, down = module.layers[0].up, module.layers[0].down
    up.weight, up.bias = (torch.nn.Parameter(each[:width].clone()) for each in (up.weight, up.bias))
    down.weight = torch.nn.Parameter(down.weight[:, :width].clone())
    up.out_features = down.in_features = width
    made = save_changed(model, module, bench.job().out)
    rows = rows_for("transformer", 3)
    assert relative(expected(model, module, rows)["output"], answers(made, rows, "torch")["output"]) < 1e-6
    assert len(inner(made).layers) == 4 - len(gone)
    assert len(Loader.read(made.path).changed.surgery.removed) == len(gone)


def test_what_two_modules_share_stays_shared_and_what_came_apart_apart(bench, tmp_path):
    (tmp_path / "tied.py").write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one, self.other, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)\n"
        "        self.other.weight = self.one.weight\n"
        "        self.third.weight = self.one.weight\n"
        "    def forward(self, features):\n"
        "        return self.third(self.other(self.one(features)))\n"
    )
    model = bench.load(tmp_path / "tied.py:Tied", inputs=(NET,))
    module = inner(model)
    module.third.weight = torch.nn.Parameter(torch.eye(4))
    again = inner(save_changed(model, module, bench.job().out))
    assert again.one.weight is again.other.weight
    assert again.third.weight is not again.one.weight
    assert torch.equal(again.third.weight, torch.eye(4))


def test_a_layer_is_passed_over(bench):
    model = bench.factory("residual")
    module = inner(model)
    module.inner = torch.nn.Identity()
    made = save_changed(model, module, bench.job().out)
    rows = rows_for("residual", 3)
    assert relative(expected(model, module, rows)["output"], answers(made, rows, "torch")["output"]) < 1e-6
    assert Loader.read(made.path).changed.surgery.skipped == ("inner",)


def test_it_is_exported_traced_and_compiled_as_it_is(bench):
    model = bench.factory("mlp")
    module = inner(model)
    trained(module)
    module.first.weight = torch.nn.Parameter(module.first.weight[:12].clone())
    module.first.bias = torch.nn.Parameter(module.first.bias[:12].clone())
    module.last.weight = torch.nn.Parameter(module.last.weight[:, :12].clone())
    module.first.out_features = module.last.in_features = 12
    made = save_changed(model, module, bench.job().out)
    rows = rows_for("mlp", 3)
    wanted = expected(model, module, rows)["output"]
    exported = Export().run(made, bench.job()).model
    assert relative(wanted, answers(exported, rows)["output"]) < 1e-5
    traced = TraceModule(numerics="fp32").run(made, bench.job()).model
    assert relative(wanted, answers(traced, rows, "torchscript")["output"]) < 1e-5
    assert "mlpack.backends.torch_surgery" in {*Export.code, *TraceModule.code, *CompileAhead.code}


def test_what_cannot_be_written_down_is_refused(bench):
    model = bench.factory("mlp")
    module = inner(model)
    module.first = torch.nn.Sequential(module.first)
    with pytest.raises(StageFailed, match="was a Linear and is a Sequential"):
        save_changed(model, module, bench.job().out)


CLASSES_OF_THE_FUNCTION = """
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

def made():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, features):
            return self.layer(features)

    torch.manual_seed(0)
    return nn.Sequential(Inner(), weight_norm(nn.Linear(4, 4)), Inner())
"""


def test_classes_that_the_function_makes_anew_are_the_same(bench, tmp_path):
    (tmp_path / "anew.py").write_text(CLASSES_OF_THE_FUNCTION)
    model = bench.load(f"{tmp_path}/anew.py:made", inputs=(NET.replace("features", "input"),))
    module = inner(model)
    assert type(inner(model)[0]) is not type(module[0])
    trained(module)
    del module[2]
    rows = {"input": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
    made = save_changed(model, module, bench.job().out)
    assert relative(expected(model, module, rows)["output"], answers(made, rows, "torch")["output"]) < 1e-6


def test_what_lies_in_plain_python_is_found_by_its_answers(bench, tmp_path):
    (tmp_path / "scaled.py").write_text(
        "from torch import nn\n"
        "class Scaled(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer, self.told = nn.Linear(4, 4), {'scale': 1.0}\n"
        "    def forward(self, features):\n"
        "        return self.layer(features) * self.told['scale']\n"
    )
    model = bench.load(tmp_path / "scaled.py:Scaled", inputs=(NET,))
    module = inner(model)
    module.told["scale"] = 2.0
    with pytest.raises(StageFailed, match="answers differently in output 'output'"):
        save_changed(model, module, bench.job().out)


@pytest.mark.parametrize("kind", ["pt2", "torchscript"])
def test_a_graph_is_refused_with_the_reason(kind, bench, tmp_path):
    net = Net().eval()
    if kind == "pt2":
        torch.export.save(torch.export.export(net, (torch.zeros(2, 4),)), tmp_path / "net.pt2")
        model, reason = bench.load(tmp_path / "net.pt2"), "has its sizes in every operator"
    else:
        torch.jit.script(net).save(tmp_path / "net.pt")
        model, reason = bench.load(tmp_path / "net.pt", inputs=(NET,)), "has its code compiled into it"
    with pytest.raises(ModelError, match=reason):
        save_changed(model, inner(model), bench.job().out)


def test_code_that_makes_another_module_now_is_told(bench, tmp_path):
    (tmp_path / "net.py").write_text(NET_CODE)
    model = bench.load(f"{tmp_path}/net.py:Net", inputs=(NET,))
    module = inner(model)
    narrower(module)
    made = save_changed(model, module, bench.job().out)
    # As an installed package would be that was upgraded: its copy is not in the folder.
    (made.path / "factory.py").write_text(
        "from torch import nn\ndef Net():\n    return nn.Sequential(nn.Linear(4, 3))\n"
    )
    with pytest.raises(ModelError, match="no longer makes the module that was changed"):
        inner(made)
