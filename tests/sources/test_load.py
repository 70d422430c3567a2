"""The load stage: every kind of model becomes a Model folder that answers as the original does."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file
from torch import nn

from mlpack.backends.torch import BACKEND, load_exported, load_module
from mlpack.core.backend_options import BackendOptions
from mlpack.core.model import TensorSpec
from mlpack.core.recipe import SourceSpec
from mlpack.datasets import open_data
from mlpack.errors import DataError, MissingHardware, ModelError, StageFailed
from mlpack.stages.load import Load

FEATURES = (TensorSpec(name="features", dtype="float32", dims=("batch", 4)),)
OPTIONS = BackendOptions(threads=1)


def run(model, **inputs):
    with BACKEND.open(model, None, OPTIONS) as runner:
        return runner(inputs)


def same_as(net, model, rows=5):
    x = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    expected = net(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(model, features=x)["output"], expected, rtol=1e-5, atol=1e-6)


def write_module(folder, body, name="m.py"):
    """A factory file whose `make` gives a module with this forward."""
    path = folder / name
    path.write_text("import torch, dataclasses, random\nfrom torch import nn\n" + body)
    return f"{path}:make"


def test_state_dict_with_a_factory_that_imports_its_neighbour(net, code, tmp_path, load):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model, _ = load(tmp_path / "w.pt", factory=f"{code}:network", data_inputs=FEATURES)
    same_as(net, model)
    assert model.inputs == FEATURES
    assert model.outputs == (TensorSpec(name="output", dtype="float32", dims=("batch", 3)),)
    assert (model.format, model.backend, model.entry) == ("torch", "torch", "loader.json")
    assert not list(model.path.glob("*.pt"))
    flat = load_module(model)
    assert not flat.inner.training
    assert isinstance(flat(torch.zeros(2, 4)), tuple)


def test_the_model_folder_keeps_its_own_copy_of_the_factory(net, code, tmp_path, load):
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model, _ = load(tmp_path / "w.safetensors", factory=f"{code}:network", data_inputs=FEATURES)
    code.write_text("raise RuntimeError('edited later')")
    same_as(net, model)


def test_two_folders_with_a_module_of_one_name(net, code, tmp_path, load):
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.py").write_text(code.read_text())
    (other / "layers.py").write_text(code.with_name("layers.py").read_text().replace("x * 2", "x * 0"))
    torch.save(net.state_dict(), tmp_path / "w.pt")
    first, _ = load(tmp_path / "w.pt", factory=f"{code}:network", data_inputs=FEATURES)
    second, _ = load(tmp_path / "w.pt", factory=f"{other / 'model.py'}:network", data_inputs=FEATURES)
    x = np.ones((1, 4), np.float32)
    bias = net.last.bias.detach().numpy()
    assert np.allclose(run(second, features=x)["output"][0], bias)
    assert not np.allclose(run(first, features=x)["output"][0], bias)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_are_unwrapped_and_it_is_said(key, prefix, net, code, tmp_path, load):
    state = {prefix + name: value for name, value in net.state_dict().items()}
    torch.save({"epoch": 3, "best": np.float64(0.9), key: state, "optimizer": {"state": {}}}, tmp_path / "c.pt")
    model, job = load(tmp_path / "c.pt", factory=f"{code}:network", data_inputs=FEATURES)
    same_as(net, model)
    said = " ".join(job.said)
    assert repr(key) in said
    assert repr(prefix.split(".")[0] + ".") in said


def test_state_dict_that_does_not_fit(net, code, tmp_path, load):
    state = net.state_dict()
    del state["last.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["first.weight"] = torch.zeros(8, 5)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "w.pt", factory=f"{code}:network", data_inputs=FEATURES)
    for word in ("last.bias", "extra.weight", "first.weight is [8, 5], the module's is [8, 4]"):
        assert word in caught.value.message


def test_exported_program_knows_its_inputs(net, tmp_path, load):
    program = torch.export.export(net, (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim("b", min=2)},))
    torch.export.save(program, tmp_path / "m.pt2")
    model, _ = load(tmp_path / "m.pt2")
    assert model.inputs == FEATURES
    assert model.dynamic_batch
    same_as(net, model)
    assert load_exported(model) is not None
    static, _ = load(tmp_path / "m.pt2", static_batch=True)
    assert static.inputs[0].dims == (2, 4)


def test_static_exported_program_stays_static_and_it_is_said(net, tmp_path, load):
    torch.export.save(torch.export.export(net, (torch.randn(5, 4),)), tmp_path / "m.pt2")
    model, job = load(tmp_path / "m.pt2")
    assert not model.dynamic_batch
    assert model.outputs[0].dims == (5, 3)
    assert any("batch of 5 only" in line for line in job.said)
    same_as(net, model)


def test_exported_program_with_trees_and_a_second_symbol(tmp_path, load):
    class Tree(nn.Module):
        def forward(self, x, pair, *, scale):
            return {"sum": x + pair[0], "rest": (pair[1] * scale, x.mean(1))}

    # Four tensors: torch.export makes one input of a tensor that is given twice.
    x, first, second, scale = (torch.randn(2, 6) for _ in range(4))
    batch, seq = torch.export.Dim("batch"), torch.export.Dim("seq", min=2, max=9)
    both = {0: batch, 1: seq}
    program = torch.export.export(
        Tree(),
        (x, (first, second)),
        {"scale": scale},
        dynamic_shapes={"x": both, "pair": (both, both), "scale": both},
    )
    torch.export.save(program, tmp_path / "m.pt2")
    model, _ = load(tmp_path / "m.pt2")
    assert [spec.name for spec in model.outputs] == ["sum", "rest.0", "rest.1"]
    symbol = model.inputs[0].dims[1]
    assert isinstance(symbol, str)
    assert model.outputs[0].dims == ("batch", symbol)
    assert model.outputs[2].dims == ("batch",)
    arrays = [np.full((3, 4), value, np.float32) for value in (1, 2, 3, 4)]
    made = run(model, **{spec.name: array for spec, array in zip(model.inputs, arrays, strict=True)})
    assert made["sum"][0, 0] == 3
    assert made["rest.0"][0, 0] == 12


def test_torchscript(net, tmp_path, load):
    torch.jit.save(torch.jit.script(net), tmp_path / "m.pt")
    model, _ = load(tmp_path / "m.pt", inputs=("features=float32:batch,4",))
    same_as(net, model)
    assert isinstance(load_module(model).inner, torch.jit.ScriptModule)


def test_allowed_pickle_stays_flagged(tmp_path, load):
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train(), tmp_path / "m.pt")
    model, _ = load(tmp_path / "m.pt", allow_pickle=True, data_inputs=FEATURES)
    assert json.loads((model.path / "loader.json").read_text())["pickled"] is True
    assert model.inputs[0].name == "input"
    assert not load_module(model).inner.training


def test_allowed_checkpoint_with_objects_needs_a_factory(net, code, tmp_path, load):
    import argparse

    torch.save({"model": net.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"argparse\.Namespace"):
        load(tmp_path / "c.pt", factory=f"{code}:network")
    with pytest.raises(ModelError, match="weights without the code"):
        load(tmp_path / "c.pt", allow_pickle=True)
    model, _ = load(tmp_path / "c.pt", allow_pickle=True, factory=f"{code}:network", data_inputs=FEATURES)
    same_as(net, model)


def test_factory_as_the_model_with_tied_weights(tmp_path, load):
    reference = write_module(
        tmp_path,
        """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("view", torch.arange(6.0)[2:])
    def forward(self, ids):
        return self.head(self.embed(ids)) + self.view.sum()
def make():
    return Tied()      # random weights: only what was saved can give the same answer again
""",
    )
    model, _ = load(reference, inputs=("ids=int64:batch,5",))
    weights = load_file(model.path / "weights.safetensors")
    assert sorted(weights) == ["embed.weight", "view"]
    one, other = load_module(model).inner, load_module(model).inner
    assert one.head.weight is one.embed.weight
    assert torch.equal(one.head.weight, other.head.weight)
    assert model.outputs[0].dims == ("batch", 5, 10)
    assert model.inputs[0].dtype == "int64"


def test_several_inputs_and_every_form_of_output(tmp_path, load):
    reference = write_module(
        tmp_path,
        """
@dataclasses.dataclass
class Out:
    logits: torch.Tensor
    hidden: tuple
    nothing: object = None
class Two(nn.Module):
    def forward(self, ids, mask=None, unused=None):
        both = (ids * mask).float()
        return Out(both.sum(1), ({"deep": both}, both.reshape(-1)))
def make():
    return Two()
""",
    )
    model, _ = load(reference, inputs=("mask=int64:batch,seq", "ids=int64:batch,seq"))
    assert [spec.name for spec in model.inputs] == ["ids", "mask"]
    dims = {spec.name: spec.dims for spec in model.outputs}
    assert list(dims) == ["logits", "hidden.0.deep", "hidden.1"]
    assert dims["logits"] == ("batch",)
    assert dims["hidden.0.deep"] == ("batch", "seq")
    assert isinstance(dims["hidden.1"][0], str)
    assert dims["hidden.1"][0] != "batch"
    made = run(model, ids=np.array([[2, 3, 4]]), mask=np.array([[1, 0, 1]]))
    assert made["logits"].tolist() == [6.0]


def test_a_program_in_bfloat16_stays_what_it_is(tmp_path, load):
    program = torch.export.export(nn.Linear(4, 3).bfloat16(), (torch.randn(2, 4).bfloat16(),))
    torch.export.save(program, tmp_path / "m.pt2")
    model, _ = load(tmp_path / "m.pt2")
    assert (model.numerics, model.outputs[0].dtype) == ("bf16", "bfloat16")


FORWARD = """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
    def forward(self, x):
        {body}
def make():
    return M()
"""


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("return x + torch.rand(1)", ModelError, ["not deterministic", "output"]),
        ("self.count += 1; return x + self.count", StageFailed, ["count"]),
        ("self.count = self.count + 1; return x", StageFailed, ["count"]),
        ("self.n = getattr(self, 'n', 0) + 1; return x + self.n", ModelError, ["not deterministic"]),
        ("return {'a': x, 'b': 'text'}", ModelError, ["'b'", "str"]),
        ("return x.reshape(2, 4) * 1", ModelError, ["batch of 2 but not of 3"]),
        ("raise ValueError('boom inside')", ModelError, ["ValueError: boom inside", "m.py", "line"]),
        ("return None", ModelError, ["without a tensor"]),
    ],
)
def test_modules_that_cannot_be_optimized(body, error, words, tmp_path, load):
    reference = write_module(tmp_path, FORWARD.format(body=body))
    with pytest.raises(error) as caught:
        load(reference, inputs=("x=float32:batch,4",))
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint


def test_nan_on_real_rows(tmp_path, load):
    np.savez(tmp_path / "d.npz", x=-np.ones((30, 4), np.float32))
    data = open_data(str(tmp_path / "d.npz"))
    reference = write_module(tmp_path, FORWARD.format(body="return torch.log(x)"))
    with pytest.raises(ModelError, match="NaN"):
        load(reference, data=data)


def test_data_under_another_name_and_in_float64(net, code, tmp_path, load):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    np.savez(tmp_path / "d.npz", whatever=np.ones((30, 4)))
    data = open_data(str(tmp_path / "d.npz"))
    model, _ = load(tmp_path / "w.pt", factory=f"{code}:network", data=data)
    assert model.inputs == FEATURES


def test_names_that_fit_no_parameter(tmp_path, load):
    reference = write_module(
        tmp_path,
        "class M(nn.Module):\n    def forward(self, a, b):\n        return a + b\ndef make():\n    return M()\n",
    )
    np.savez(tmp_path / "d.npz", a=np.ones((30, 4)), c=np.ones((30, 4)))
    with pytest.raises(DataError, match=r"a, c.*a, b"):
        load(reference, data=open_data(str(tmp_path / "d.npz")))


def test_factories_that_fail(tmp_path, load):
    reference = write_module(tmp_path, "def helper():\n    raise KeyError('lost')\ndef make():\n    helper()\n")
    with pytest.raises(ModelError) as raised:
        load(reference)
    assert "KeyError: 'lost'" in raised.value.message
    assert "m.py" in raised.value.message
    assert "user_code.py" not in raised.value.message
    with pytest.raises(ModelError) as near:
        load(reference.replace(":make", ":maek"))
    assert near.value.hint.endswith(":make?")
    with pytest.raises(ModelError, match=r"not an nn\.Module"):
        load(write_module(tmp_path, "def make():\n    return 3\n", "n.py"))
    with pytest.raises(ModelError, match="SyntaxError"):
        load(write_module(tmp_path, "def make(:\n", "s.py"))


def test_the_key_follows_the_content(net, code, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    spec = SourceSpec(model=str(tmp_path / "w.pt"), factory=f"{code}:network")
    first = Load.of(spec)
    assert Load.of(spec) == first
    assert Load.model_validate_json(first.model_dump_json()) == first
    code.write_text(code.read_text() + "\n# edited\n")
    assert Load.of(spec).factory_sha256 != first.factory_sha256
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "w.pt")
    assert Load.of(spec).sha256 != first.sha256


def test_operators_are_aten_ops_in_ms_within_the_modules_that_call_them(net, code, tmp_path, load):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model, _ = load(tmp_path / "w.pt", factory=f"{code}:network", data_inputs=FEATURES)
    spent = BACKEND.operators(model, None, OPTIONS, {"features": np.zeros((2, 4), np.float32)})
    linear = {each.module for each in spent if each.operator == "aten::addmm"}
    assert linear == {name for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    assert all(0 < each.ms < 1000 for each in spent)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_never_replaced_by_the_cpu(net, code, tmp_path, load):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model, _ = load(tmp_path / "w.pt", factory=f"{code}:network", data_inputs=FEATURES)
    options = BackendOptions(threads=1, device="cuda")
    assert "CUDA" in BACKEND.refusal(model, None, options)
    with pytest.raises(MissingHardware), BACKEND.open(model, None, options):
        pass


def test_a_failing_call_is_a_stage_failure(net, code, tmp_path, load):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model, _ = load(tmp_path / "w.pt", factory=f"{code}:network", data_inputs=FEATURES)
    with pytest.raises(StageFailed, match=r"features \[2, 5\]"):
        run(model, features=np.zeros((2, 5), np.float32))


def weights_onnx(path, *, first="N", external=True, domain="", op="MatMul"):
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [first, 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(domain or "", 17 if not domain else 3)], ir_version=10
    )
    onnx.save_model(
        model,
        path,
        save_as_external_data=external,
        location="weights.bin",
        size_threshold=0,
        all_tensors_to_one_file=True,
    )


def test_onnx_with_external_data(tmp_path, load):
    weights_onnx(tmp_path / "m.onnx")
    model, _ = load(tmp_path / "m.onnx")
    assert (model.format, model.backend) == ("onnx", "onnxruntime")
    assert sorted(file.name for file in model.files()) == ["model.onnx", "weights.bin"]
    assert model.inputs[0].dims == ("batch", 4)
    assert model.outputs[0].dims == ("batch", 3)
    assert load(tmp_path / "m.onnx", static_batch=True)[0].inputs[0].dims == (1, 4)


def test_onnx_refusals(tmp_path, load):
    weights_onnx(tmp_path / "m.onnx")
    whole = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(whole[:-8])
    with pytest.raises(ModelError, match="cut off: 40 bytes"):
        load(tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"needs weights\.bin"):
        load(tmp_path / "m.onnx")
    weights_onnx(tmp_path / "ml.onnx", external=False, domain="ai.onnx.ml", op="Scaler")
    with pytest.raises(ModelError, match="classical"):
        load(tmp_path / "ml.onnx")
    weights_onnx(tmp_path / "bad.onnx", external=False, op="NoSuchOperator")
    with pytest.raises(ModelError, match="NoSuchOperator"):
        load(tmp_path / "bad.onnx")
    outside = onnx.load(tmp_path / "bad.onnx")
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    pair = tensor.external_data.add()
    pair.key, pair.value = "location", "../../etc/passwd"
    (tmp_path / "outside.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(ModelError, match="outside its own folder"):
        load(tmp_path / "outside.onnx")
