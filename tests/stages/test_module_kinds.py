"""Modules as people write them: optional inputs, trees of outputs, half precision, tied weights, training mode."""

from __future__ import annotations

import dataclasses
import runpy

import numpy as np
import pytest
import torch
from doors import answers, relative

from mlpack.core.recipe import SourceSpec
from mlpack.errors import ModelError
from mlpack.stages.export import Export
from mlpack.stages.load import Load

CODE = '''
import dataclasses

import torch
from torch import nn


class Masked(nn.Module):
    """Attends to what an optional mask leaves."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, ids, mask=None, weights=None):
        seen = self.table(ids)
        if mask is None:
            return self.head(seen.mean(1))
        if weights is not None:
            mask = mask * weights
        return self.head((seen * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1))


@dataclasses.dataclass
class Found:
    score: torch.Tensor
    classes: torch.Tensor
    path: torch.Tensor
    maps: torch.Tensor | None = None


class Ranks(nn.Module):
    """A number, classes, a vector for each step, planes: in a dict, or a dataclass inside of one."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.body, self.head = kind, nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, steps):
        path = torch.tanh(self.body(steps))
        pooled = path.mean(1)
        found = Found(pooled.sum(-1), self.head(pooled), path)
        if self.kind == "dict":
            return {**vars(found), "maps": path.reshape(path.shape[0], path.shape[1], 3, 4)}
        return {"found": found, "extra": (path.argmax(-1), [pooled > 0])}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.table(ids)).mean(1))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.two(self.dropout(torch.relu(self.norm(self.one(x)))))


def masked():
    torch.manual_seed(0)
    return Masked().eval()


def ranks_dict():
    torch.manual_seed(0)
    return Ranks("dict").eval()


def ranks_dataclass():
    torch.manual_seed(0)
    return Ranks("dataclass").eval()


def tied():
    torch.manual_seed(0)
    return Tied().eval()


def normed():
    torch.manual_seed(0)
    made = Normed().train()
    for _ in range(3):
        made(torch.randn(32, 6) * 3 + 1)
    return made


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3)).train()


def dropping():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()


def brain():
    return normed().eval().bfloat16()


def half():
    return normed().eval().half()
'''
IDS = "ids=int64:batch,length"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The functions of the user's file, by name."""
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(CODE)
    return runpy.run_path(str(path), run_name="own")


@pytest.fixture
def run(bench, tmp_path):
    """Load and export one of the modules: (loaded, exported, what the load stage says of it)."""
    (tmp_path / "models.py").write_text(CODE)

    def call(name, *inputs):
        stage = Load.of(SourceSpec(model=f"{tmp_path / 'models.py'}:{name}", inputs=inputs))
        loaded = stage.run(None, bench.job())
        return loaded.model, Export().run(loaded.model, bench.job()).model, loaded.report.metrics["notes"]

    return call


def agree(exported, module, tolerance=1e-5, **inputs):
    """The exported file and the user's own module on these inputs; bool and whole-number outputs exactly."""
    with torch.inference_mode():
        given = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    true = given if isinstance(given, dict) else {"output": given}
    got = answers(exported, inputs)
    flat = {}
    for name, value in true.items():
        if isinstance(value, torch.Tensor):
            flat[name] = value
        elif dataclasses.is_dataclass(value):
            flat |= {f"{name}.{key}": each for key, each in vars(value).items() if each is not None}
        else:
            flat |= {f"{name}.0": value[0], f"{name}.1.0": value[1][0]}
    assert list(got) == list(flat)
    for name, tensor in flat.items():
        if tensor.is_floating_point():
            assert relative(tensor.float().numpy(), got[name]) < tolerance, name
        else:
            np.testing.assert_array_equal(got[name], tensor.numpy(), err_msg=name)
    return got


def ids(count, length):
    return np.random.default_rng(count).integers(0, 30, (count, length))


@pytest.mark.parametrize("inputs", [["ids"], ["ids", "mask"], ["ids", "mask", "weights"]])
def test_optional_inputs_are_taken_where_they_are_given(run, own, inputs):
    specs = {"ids": IDS, "mask": "mask=float32:batch,length", "weights": "weights=float32:batch,length"}
    loaded, exported, _ = run("masked", *(specs[name] for name in inputs))
    assert [spec.name for spec in loaded.inputs] == inputs
    for count, length in ((1, 4), (5, 9)):
        ones = (np.arange(length) < 3).astype(np.float32) * np.ones((count, 1), np.float32)
        arrays = {"ids": ids(count, length), "mask": ones, "weights": ones * 0.5}
        agree(exported, own["masked"](), **{name: arrays[name] for name in inputs})


def test_outputs_of_several_ranks_in_a_dict(run, own):
    loaded, exported, _ = run("ranks_dict", "steps=float32:batch,time,6")
    dims = {spec.name: spec.dims for spec in exported.outputs}
    assert dims == {spec.name: spec.dims for spec in loaded.outputs}
    assert dims == {
        "score": ("batch",), "classes": ("batch", 3), "path": ("batch", "time", 12), "maps": ("batch", "time", 3, 4),
    }  # fmt: skip
    for count, time in ((1, 2), (4, 7)):
        steps = np.random.default_rng(0).standard_normal((count, time, 6)).astype(np.float32)
        agree(exported, own["ranks_dict"](), steps=steps)


def test_outputs_in_a_dataclass_inside_a_dict_with_whole_numbers_and_bools(run, own):
    _, exported, _ = run("ranks_dataclass", "steps=float32:batch,time,6")
    assert [(spec.name, spec.dtype) for spec in exported.outputs] == [
        ("found.score", "float32"), ("found.classes", "float32"), ("found.path", "float32"),
        ("extra.0", "int64"), ("extra.1.0", "bool"),
    ]  # fmt: skip
    agree(exported, own["ranks_dataclass"](), steps=np.random.default_rng(0).standard_normal((3, 5, 6), np.float32))


def test_tied_weights_are_written_once(run, own):
    loaded, exported, _ = run("tied", IDS)
    agree(exported, own["tied"](), ids=ids(4, 6))
    size = 30 * 8 * 4
    assert (loaded.path / "weights.safetensors").stat().st_size < 2 * size
    assert exported.entry_path.stat().st_size < 2 * size + 4000


def test_a_module_in_training_mode_is_told_of_and_served_in_inference_mode(run, own):
    loaded, exported, notes = run("normed", "x=float32:batch,6")
    assert len(notes) == 1
    assert "came in training mode" in notes[0]
    assert loaded.numerics == "fp32"
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    agree(exported, own["normed"]().eval(), x=x)


def test_a_mode_that_changes_nothing_is_not_told_of(run, own):
    _, exported, notes = run("plain", "input=float32:batch,6")
    assert notes == []
    with torch.inference_mode():
        true = own["plain"]()(torch.ones(2, 6)).numpy()
    assert relative(true, answers(exported, {"input": np.ones((2, 6), np.float32)})["output"]) < 1e-5


@pytest.mark.parametrize(("name", "dtype"), [("brain", "bfloat16"), ("half", "float16")])
@pytest.mark.parametrize("given", ["float32", "own"])
def test_half_precision_is_widened_and_told_of(run, own, name, dtype, given):
    loaded, exported, notes = run(name, f"x={dtype if given == 'own' else given}:batch,6")
    assert notes == [f"the weights are {dtype}: widened to float32, which the numerics flags narrow again"]
    assert loaded.numerics == "fp32"
    assert {spec.dtype for spec in (*exported.inputs, *exported.outputs)} == {"float32"}
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    agree(exported, own[name]().float(), x=x)


def test_weights_narrower_than_their_module_are_told_of(bench, own, tmp_path):
    (tmp_path / "models.py").write_text(CODE)
    torch.save(own["brain"]().state_dict(), tmp_path / "weights.pt")
    spec = SourceSpec(
        model=str(tmp_path / "weights.pt"), factory=f"{tmp_path / 'models.py'}:normed", inputs=("x=float32:batch,6",)
    )
    notes = Load.of(spec).run(None, bench.job()).report.metrics["notes"]
    assert notes == ["the weights are bfloat16: widened to float32, which the numerics flags narrow again"]


def test_torchscript_in_training_mode_is_told_of(bench, own, tmp_path):
    torch.jit.save(torch.jit.script(own["normed"]()), tmp_path / "model.pt")
    stage = Load.of(SourceSpec(model=str(tmp_path / "model.pt"), inputs=("x=float32:batch,6",)))
    loaded = stage.run(None, bench.job())
    assert any("training mode" in note for note in loaded.report.metrics["notes"])
    exported = Export().run(loaded.model, bench.job()).model
    agree(exported, own["normed"]().eval(), x=np.ones((3, 6), np.float32))


@pytest.mark.parametrize(("name", "words"), [("normed", "batch_norm"), ("dropping", "dropout")])
def test_a_program_that_was_exported_in_training_mode_is_refused_with_the_way_out(name, words, bench, own, tmp_path):
    torch.export.save(torch.export.export(own[name](), (torch.randn(4, 6),)), tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=f"exported in training mode .*{words}") as raised:
        bench.load(tmp_path / "model.pt2")
    assert "eval()" in raised.value.hint


def test_a_program_in_bfloat16_is_kept_and_not_exported_as_no_runtime_takes_it(bench, own, tmp_path):
    program = torch.export.export(own["brain"](), (torch.randn(4, 6).bfloat16(),))
    torch.export.save(program, tmp_path / "model.pt2")
    stage = Load.of(SourceSpec(model=str(tmp_path / "model.pt2")))
    loaded = stage.run(None, bench.job())
    assert loaded.model.numerics == "bf16"
    assert any("computes in bfloat16: kept" in note for note in loaded.report.metrics["notes"])
    with pytest.raises(ModelError, match="bfloat16") as raised:
        Export().run(loaded.model, bench.job())
    assert "model.float()" in raised.value.hint


def test_a_program_in_float16_is_kept_and_exported(bench, own, tmp_path):
    module = own["half"]()
    torch.export.save(torch.export.export(module, (torch.randn(4, 6).half(),)), tmp_path / "model.pt2")
    stage = Load.of(SourceSpec(model=str(tmp_path / "model.pt2")))
    loaded = stage.run(None, bench.job())
    assert loaded.model.numerics == "fp16"
    assert any("computes in float16: kept" in note for note in loaded.report.metrics["notes"])
    exported = Export(tolerance=1e-2).run(loaded.model, bench.job()).model
    agree(exported, module, 1e-2, x=np.ones((4, 6), np.float16))
