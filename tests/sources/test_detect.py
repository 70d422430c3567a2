"""Models are recognised by content, and what is none is refused with a reason and a way out."""

import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors.torch import save_file

from mlpack.core.recipe import SourceSpec
from mlpack.errors import ModelError
from mlpack.sources.detect import detect


def tiny_onnx(path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def export(net, path):
    program = torch.export.export(net, (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.export.save(program, path)


MAKERS = {
    "exported_program": export,
    "torchscript": lambda net, path: torch.jit.save(torch.jit.trace(net, torch.randn(2, 4)), path),
    "pickled_module": torch.save,
    "state_dict": lambda net, path: torch.save(net.state_dict(), path),
    "onnx_file": lambda _, path: tiny_onnx(path),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_by_content_not_by_suffix(kind, net, tmp_path, code):
    real = tmp_path / ("model.pt2" if kind == "exported_program" else "model.pt")
    MAKERS[kind](net, real)
    path = real.rename(tmp_path / "model.bin")
    factory = f"{code}:network" if kind == "state_dict" else None
    found = detect(SourceSpec(model=str(path), factory=factory, allow_pickle=True))
    assert found.kind == kind
    assert found.path == path


@pytest.mark.parametrize("what", ["module", "state"])
def test_files_from_before_torch_1_6(what, net, tmp_path, code):
    path = tmp_path / "old.pt"
    torch.save(net if what == "module" else net.state_dict(), path, _use_new_zipfile_serialization=False)
    factory = None if what == "module" else f"{code}:network"
    found = detect(SourceSpec(model=str(path), allow_pickle=True, factory=factory))
    assert (found.kind, found.container) == (
        ("pickled_module" if what == "module" else "state_dict"),
        "torch_legacy",
    )


def test_safetensors_and_checkpoint_are_state_dicts(net, tmp_path, code):
    save_file(net.state_dict(), tmp_path / "w.bin")
    torch.save({"epoch": 3, "best": np.float64(0.5), "model": net.state_dict()}, tmp_path / "c.bin")
    for name in ("w.bin", "c.bin"):
        assert detect(SourceSpec(model=str(tmp_path / name), factory=f"{code}:network")).kind == "state_dict"


def test_recognising_imports_no_heavy_library(net, tmp_path, code):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    torch.save(net, tmp_path / "m.pt")
    tiny_onnx(tmp_path / "m.onnx")
    script = f"""
import sys
from mlpack.core.recipe import SourceSpec
from mlpack.sources.detect import detect
detect(SourceSpec(model={str(tmp_path / "w.pt")!r}, factory={f"{code}:network"!r}))
detect(SourceSpec(model={str(tmp_path / "m.pt")!r}, allow_pickle=True))
detect(SourceSpec(model={str(tmp_path / "m.onnx")!r}))
print([name for name in ("torch", "onnx", "safetensors") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def refusal(path, **options):
    with pytest.raises(ModelError) as caught:
        detect(SourceSpec(model=str(path), **options))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in caught.value.hint
    return caught.value


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_malicious_pickle_is_listed_and_never_run(form, protocol, tmp_path):
    marker = tmp_path / "pwned"
    path = tmp_path / "evil.pt"
    if form == "plain":
        path.write_bytes(pickle.dumps(Payload(marker), protocol))
    else:
        torch.save(
            {"weight": torch.zeros(2), "x": Payload(marker)},
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=form == "zip",
        )
    error = refusal(path)
    assert ".system" in error.message
    if form != "plain":
        assert "can run any code" in error.message
        assert error.hint.endswith("--allow-pickle")
    assert not marker.exists()


def test_eval_is_marked_and_honest_globals_are_not(net, tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, ("1",)

    torch.save({"m": net, "e": Evil()}, tmp_path / "evil.pt")
    lines = refusal(tmp_path / "evil.pt").message.splitlines()
    marked = [line.split()[0] for line in lines if "can run any code" in line]
    assert len(marked) == 1
    assert marked[0].endswith(".eval")
    assert any("Linear" in line for line in lines)


def test_a_pickled_module_is_refused_with_the_three_lines(net, tmp_path):
    torch.save(net, tmp_path / "m.pt")
    message = refusal(tmp_path / "m.pt").message
    assert "torch.export.save" in message
    assert f"{type(net).__module__}.Net" in message


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_weights_without_a_factory_give_a_help_page(form, net, tmp_path):
    path = tmp_path / "w"
    if form == "torch":
        torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, path)
    else:
        save_file(net.state_dict(), path)
    error = refusal(path)
    assert "4 tensors" in error.message
    assert "first.weight  [8, 4]" in error.message
    assert "def network" in error.message
    assert "--factory model.py:network" in error.hint
    assert ("module." in error.message) == (form == "torch")


def test_missing_empty_folder_truncated(net, tmp_path):
    assert "no file" in refusal(tmp_path / "nothing.pt").message
    (tmp_path / "model.pt2").write_bytes(b"")
    assert str(tmp_path / "model.pt2") in refusal(tmp_path / "modle.pt2").hint
    assert "empty" in refusal(tmp_path / "model.pt2").message
    assert "folder" in refusal(tmp_path).message
    (tmp_path / "config.json").write_text("{}")
    assert "model_type" in refusal(tmp_path).message
    for kind, make in MAKERS.items():
        whole = tmp_path / f"{kind}.pt2"
        make(net, whole)
        whole.write_bytes(whole.read_bytes()[: -whole.stat().st_size // 3])
        assert "too early" in refusal(whole).message
    save_file(net.state_dict(), tmp_path / "w")
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-10])
    assert "too early" in refusal(tmp_path / "w", factory=None).message


def test_other_files(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    assert "--data" in refusal(tmp_path / "data.npz").hint
    (tmp_path / "text.pt").write_text("hello, this is text and not a model at all")
    assert "no model" in refusal(tmp_path / "text.pt").message
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    assert "zip" in refusal(tmp_path / "z.zip").message
    (tmp_path / "net.py").write_text("def build():\n    pass\n")
    assert refusal(tmp_path / "net.py").hint == f"{tmp_path / 'net.py'}:build"


def test_factory_references(code, tmp_path, net, monkeypatch):
    found = detect(SourceSpec(model=f"{code}:network"))
    assert found.kind == "factory"
    before = found.sha256
    code.write_text(code.read_text() + "\n# changed\n")
    assert detect(SourceSpec(model=f"{code}:network")).sha256 != before
    assert "no file" in refusal(code.with_name("nope.py").as_posix() + ":f").message
    assert "no module" in refusal("not_there_at_all:f").message
    monkeypatch.chdir(code.parent)
    assert detect(SourceSpec(model="model:network")).kind == "factory"
    export(net, tmp_path / "m.pt2")
    assert "needs no factory" in refusal(tmp_path / "m.pt2", factory=f"{code}:network").message


@settings(max_examples=60)
@given(
    content=st.binary(min_size=1, max_size=200),
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x08\x07"]),
)
@example(content=b"\x8d\x00\x00\x00\x00\x00\x00\x00\x01", start=b"\x80\x02")  # a string of 2**56 bytes, it says
@example(content=b"\xff" * 9 + b"\x01", start=b"\x08\x07\x3a")  # a graph of 2**63 bytes
def test_any_bytes_are_refused_and_never_crash(content, start, tmp_path):
    path = tmp_path / "any"
    path.write_bytes(start + content)
    try:
        found = detect(SourceSpec(model=str(path)))
    except ModelError:
        return
    assert found.kind == "onnx_file"
