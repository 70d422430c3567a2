"""Files of torch's own: AOTInductor packages and TorchScript archives answer as the original does, without its code."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from doors import A100, VNNI, answers, relative, rows_for
from pydantic import ValidationError

from mlpack.backends import BACKENDS, aotinductor
from mlpack.core.backend_options import BackendOptions
from mlpack.core.machine import cpp_compiler, isa
from mlpack.core.targets import cpu_numerics, this_machine
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed, UsageError
from mlpack.stages.compile import Compile
from mlpack.stages.compile_ahead import CompileAhead
from mlpack.stages.trace_module import TraceModule

HERE = this_machine()
BATCHES = (1, 2, 7, 32)
BF16 = 1.5e-2
FP32 = 1e-4
needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="there is no C++ compiler")


def made(bench, kept, name, stage):
    return stage.run(kept.factory(name), bench.job(target=HERE))


def worst(original, model, backend, name, **options):
    """The largest relative difference of an output at any batch size."""
    found = []
    for count in BATCHES:
        rows = rows_for(name, count, seed=count)
        reference, other = answers(original, rows, "torch"), answers(model, rows, backend, **options)
        assert {key: array.shape for key, array in other.items()} == {k: a.shape for k, a in reference.items()}
        found += [relative(reference[key], array) for key, array in other.items()]
    return max(found)


@pytest.fixture(scope="module")
def packages(tmp_path_factory, kept):
    """One package for each kind of numerics: compiling takes a while."""
    from doors import Bench

    bench = Bench(tmp_path_factory.mktemp("packages"))
    return {
        numerics: made(bench, kept, name, CompileAhead(numerics=numerics))
        for numerics, name in {"fp32": "conv_net", "bf16": "siamese"}.items()
    }


@pytest.mark.slow
@needs_compiler
def test_one_package_answers_every_batch_size(kept, packages):
    done = packages["fp32"]
    assert (done.model.format, done.model.numerics, done.model.entry) == ("aotinductor", "fp32", "model.pt2")
    assert done.model.inputs == kept.factory("conv_net").inputs
    assert max(done.report.metrics["differences"].values()) < FP32
    assert worst(kept.factory("conv_net"), done.model, "aotinductor", "conv_net") < FP32


@pytest.mark.slow
@needs_compiler
def test_a_bf16_package_rounds_and_answers_in_float32(kept, packages):
    done = packages["bf16"]
    assert (done.model.numerics, done.model.numerics_share) == ("bf16", 1.0)
    gap = worst(kept.factory("siamese"), done.model, "aotinductor", "siamese", precision="bfloat16")
    assert FP32 < gap < BF16, "bf16 rounds, and no more than that"
    assert HERE.numerics == cpu_numerics(isa())
    told = BACKENDS["aotinductor"].refusal(done.model, HERE, BackendOptions())
    assert told == "its kernels compute in bf16"


@pytest.mark.slow
@needs_compiler
def test_a_package_needs_torch_alone(bench, packages, tmp_path):
    rows = rows_for("conv_net", 3)
    np.save(tmp_path / "rows.npy", rows["image"])
    program = (
        "import sys, numpy as np, torch\n"
        "package = torch._inductor.aoti_load_package(sys.argv[1])\n"
        "(made,) = package(torch.from_numpy(np.load('rows.npy')))\n"
        "np.save('made.npy', made.numpy())\n"
        "assert not [name for name in sys.modules if name.startswith(('mlpack', 'zoo'))]\n"
    )
    # Isolated: neither this repository nor the folder of the user's code can be imported.
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(packages["fp32"].model.entry_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = answers(packages["fp32"].model, rows, "aotinductor")["output"]
    np.testing.assert_allclose(np.load(tmp_path / "made.npy"), expected, rtol=1e-5)


@pytest.mark.slow
@needs_compiler
def test_what_will_serve_a_package_is_written_down(bench, packages):
    (stage,) = Compile().propose(packages["bf16"].model, HERE)
    model = stage.run(packages["bf16"].model, bench.job(target=HERE)).model
    assert (model.backend, model.backend_options.precision) == ("aotinductor", "bfloat16")
    with pytest.raises(UsageError, match="openvino does not run aotinductor models"):
        Compile(backend="openvino").propose(packages["bf16"].model, HERE)


@pytest.mark.slow
@needs_compiler
def test_a_package_for_another_cpu_is_refused(packages, monkeypatch):
    model = packages["fp32"].model
    with zipfile.ZipFile(model.entry_path) as package:
        told = [json.loads(package.read(name)) for name in package.namelist() if name.endswith("metadata.json")]
    assert {each[aotinductor.ISA] for each in told} == {" ".join(isa())}
    backend = BACKENDS["aotinductor"]
    assert backend.refusal(model, HERE, BackendOptions()) is None
    assert backend.refusal(model, A100, BackendOptions()) == "its kernels are compiled for the CPU"
    monkeypatch.setattr(aotinductor, "isa", lambda: ())
    assert backend.refusal(model, HERE, BackendOptions()) == f"it is compiled for a CPU with {' '.join(isa())}"
    with pytest.raises(MissingHardware), backend.open(model, HERE, BackendOptions()):
        pass


@pytest.mark.slow
@needs_compiler
def test_what_a_package_does_not_take_is_a_failed_stage(packages):
    for wrong in (np.zeros((2, 5, 8, 8), np.float32), np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 8), np.float32)):
        with pytest.raises(StageFailed, match=r"package fails on image \[2, .*takes image=float32:batch,3,8,8"):
            answers(packages["fp32"].model, {"image": wrong}, "aotinductor")
    pair = {"left": np.zeros((2, 8), np.float32), "right": np.zeros((3, 8), np.float32)}
    with pytest.raises(StageFailed, match="takes right=float32:batch,8"):
        answers(packages["bf16"].model, pair, "aotinductor", precision="bfloat16")


@pytest.mark.parametrize("backend", ["aotinductor", "torchscript"])
def test_a_damaged_file_is_a_failed_stage(bench, kept, backend):
    out = bench.job().out
    (out / "model").write_bytes(b"damaged")
    model = kept.factory("mlp").model_copy(update={"path": out, "entry": "model", "format": backend})
    with pytest.raises(StageFailed, match="fails on loading"), BACKENDS[backend].open(model, HERE, BackendOptions()):
        pass


@needs_compiler
@pytest.mark.parametrize("stage", [CompileAhead(numerics="fp32"), TraceModule(numerics="fp32")])
def test_control_flow_that_depends_on_values_is_a_failed_stage(bench, kept, stage):
    rows = rows_for("branching", 16)
    parts = {"calibration": bench.data(x=rows["x"])}
    with pytest.raises(StageFailed) as caught:
        stage.run(kept.factory("branching"), bench.job(target=HERE, parts=parts))
    assert "\n" not in caught.value.message
    assert "torch.cond" in caught.value.hint or "control flow" in caught.value.hint


def test_without_a_compiler_nothing_is_compiled(bench, kept, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert "C++ compiler" in CompileAhead().lacks()
    with pytest.raises(MissingLibrary, match="C\\+\\+ compiler") as caught:
        CompileAhead(numerics="fp32").run(kept.factory("mlp"), bench.job(target=HERE))
    assert caught.value.hint == "apt-get install g++"
    backend = BACKENDS["torch_compile"]
    assert "C++ compiler" in backend.refusal(kept.factory("mlp"), HERE, BackendOptions())
    with pytest.raises(MissingLibrary), backend.open(kept.factory("mlp"), HERE, BackendOptions()):
        pass


@pytest.mark.parametrize("stage", [CompileAhead(), TraceModule()])
def test_numerics_are_those_of_the_cpu_and_no_other_target_is_served(kept, stage):
    model = kept.factory("mlp")
    plain = HERE.model_copy(update={"numerics": ("fp32",)})
    assert [each.numerics for each in stage.propose(model, plain)] == ["fp32"]
    narrow = HERE.model_copy(update={"numerics": ("fp32", "bf16")})
    assert [each.numerics for each in stage.propose(model, narrow)] == ["fp32", "bf16"]
    assert stage.refusal(HERE) is None
    assert "is not that" in stage.refusal(A100)
    assert (stage.refusal(VNNI) is None) == VNNI.here
    with pytest.raises(ValidationError):
        type(stage)(numerics="int8")


# Not the transformer: once a ModuleList was traced, torch's exporter loses its name in all that is traced later.
# Nor the tagger in bf16: the interpreter refuses LSTM layers whose weights alone are cast.
@pytest.mark.parametrize(
    ("name", "numerics"),
    [("conv_net", "fp32"), ("conv_net", "bf16"), ("siamese", "bf16"), ("tagger", "fp32"), ("twice", "fp32")],
)
def test_an_archive_answers_every_batch_size(bench, kept, name, numerics):
    done = made(bench, kept, name, TraceModule(numerics=numerics))
    model = kept.factory(name)
    narrow = numerics == "bf16"
    gap = worst(model, done.model, "torchscript", name, precision="bfloat16" if narrow else "float32")
    assert gap < (BF16 if narrow else FP32)
    assert done.model.numerics_share == 1.0 or narrow
    assert [path.name for path in done.model.files()] == ["model.ts"]


def test_an_archive_needs_torch_alone(bench, kept, tmp_path):
    model = made(bench, kept, "mlp", TraceModule(numerics="fp32")).model
    script = torch.jit.load(str(model.entry_path))
    rows = rows_for("mlp", 5)
    (answer,) = script(torch.from_numpy(rows["x"]))
    np.testing.assert_allclose(answer.numpy(), answers(kept.factory("mlp"), rows, "torch")["output"], rtol=1e-5)
    assert "zoo" not in Path(model.entry_path).read_bytes().decode(errors="replace").replace("mlpack_user", "")


def test_a_script_keeps_its_loops(bench, tmp_path):
    class Repeated(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(x.shape[1]):
                x = torch.tanh(x) * 2
            return x

    path = tmp_path / "loops.pt"
    torch.jit.script(Repeated()).save(str(path))
    model = bench.load(path, inputs=("x=float32:batch,length",))
    done = TraceModule(numerics="fp32").run(model, bench.job(target=HERE))
    for length in (1, 3, 9):
        x = np.random.default_rng(length).standard_normal((4, length)).astype(np.float32)
        expected = answers(model, {"x": x}, "torch")["output"]
        np.testing.assert_allclose(answers(done.model, {"x": x}, "torchscript")["output"], expected, rtol=1e-5)
