"""Torch on a device and in a precision: half precision, CUDA graphs, Torch-TensorRT; what is not here is said."""

import numpy as np
import pytest
import torch
from doors import A100, answers, relative, rows_for
from zoo import conv_net

from mlpack.api.prepare import as_run_today
from mlpack.backends import BACKENDS, runs
from mlpack.backends.torch_tensorrt import lacking
from mlpack.core.backend_options import BackendOptions
from mlpack.core.installation import unmet
from mlpack.core.targets import this_machine
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed

HERE = this_machine()
ON_CARD = BackendOptions(threads=1, device="cuda")
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
without_card = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["conv_net", "transformer"])
def test_half_precision_is_rounded_as_it_rounds_and_float32_comes_out(kept, name, precision):
    model, rows = kept.factory(name), rows_for(name, 4)
    expected = answers(model, rows, "torch")
    found = answers(model, rows, "torch", precision=precision)
    assert found.keys() == expected.keys()
    most = {"bfloat16": 5e-2, "float16": 5e-3}[precision]
    for output, array in expected.items():
        assert found[output].dtype == np.float32
        assert 1e-6 < relative(array, found[output]) < most, "rounded: neither exact nor wrong"
    assert relative(expected["output"], answers(model, rows, "torch")["output"]) == 0, "each session has its own module"


def test_operators_in_half_precision_keep_their_modules(kept):
    told = BackendOptions(threads=1, precision="bfloat16")
    spent = BACKENDS["torch"].operators(kept.factory("conv_net"), HERE, told, rows_for("conv_net", 2))
    plain = BACKENDS["torch"].operators(
        kept.factory("conv_net"), HERE, BackendOptions(threads=1), rows_for("conv_net", 2)
    )
    assert {each.module for each in plain if each.module} <= {each.module for each in spent}


@pytest.fixture
def exported_file(tmp_path):
    """A `.pt2`, whose operators say what they compute in and where."""
    program = torch.export.export(
        conv_net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    torch.export.save(program, tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def test_an_exported_program_keeps_its_precision(bench, exported_file):
    model = bench.load(exported_file)
    for name in runs("torch", "cpu"):
        told = BackendOptions(threads=1, precision="bfloat16")
        assert (
            BACKENDS[name].refusal(model, HERE, told) == "an exported program keeps the precision that it was made in"
        )
        with (
            pytest.raises(MissingHardware, match="keeps the precision that it was made in") as caught,
            BACKENDS[name].open(model, HERE, told),
        ):
            pass
        assert caught.value.exit_code == 3


def test_what_runs_on_cards_alone_is_no_contender_on_a_cpu():
    assert runs("torch", "cpu") == ("torch", "torch_compile")
    assert runs("torch", "cuda") == ("torch", "torch_compile", "torch_cuda_graph", "torch_tensorrt")
    assert runs("tensorrt", "cpu") == ()
    assert runs("onnx", "cpu") == runs("onnx", "cuda") == runs("onnx")


@pytest.mark.parametrize(
    ("name", "on_cpu"),
    [
        ("torch_cuda_graph", "CUDA graphs are recorded on a CUDA device"),
        ("torch_tensorrt", "TensorRT compiles for a CUDA device"),
    ],
)
def test_what_is_for_a_card_refuses_the_cpu(kept, name, on_cpu):
    model = kept.factory("mlp")
    assert BACKENDS[name].refusal(model, HERE, BackendOptions()) == on_cpu
    with pytest.raises(MissingHardware, match=on_cpu), BACKENDS[name].open(model, HERE, BackendOptions()):
        pass


@without_card
@pytest.mark.parametrize("name", ["torch", "torch_compile", "torch_cuda_graph"])
def test_a_card_that_is_not_there_is_never_replaced(kept, name):
    model = kept.factory("mlp")
    assert BACKENDS[name].refusal(model, A100, ON_CARD) == "torch sees no CUDA device"
    with pytest.raises(MissingHardware, match="torch sees no CUDA device"), BACKENDS[name].open(model, A100, ON_CARD):
        pass


def installed(folder, name, version, *requires):
    """A distribution of this name and version, as pip leaves it; nothing can be imported of it."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    lines = [
        f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {each}" for each in requires),
    ]
    (place / "METADATA").write_text("\n".join(lines) + "\n")


def test_versions_that_do_not_go_together_are_refused_before_anything_is_imported(kept, tmp_path, monkeypatch):
    model, backend = kept.factory("mlp"), BACKENDS["torch_tensorrt"]
    if lacking() is not None:
        assert lacking().message == "Torch-TensorRT is not installed"
    monkeypatch.syspath_prepend(tmp_path)
    needs = ("torch<2.9,>=2.8", "tensorrt<11.2,>=11", "sphinx; extra == 'docs'", "colorama; sys_platform == 'win32'")
    installed(tmp_path, "torch-tensorrt", "2.8.0", *needs)
    installed(tmp_path, "tensorrt", "10.13.0")
    wrong = unmet("torch-tensorrt")
    assert wrong == [f"torch<2.9,>=2.8 (here: {torch.__version__})", "tensorrt<11.2,>=11 (here: 10.13.0)"]
    assert backend.refusal(model, A100, ON_CARD) == f"Torch-TensorRT 2.8.0 wants {', '.join(wrong)}"
    with pytest.raises(MissingLibrary, match="wants torch") as caught, backend.open(model, A100, ON_CARD):
        pass
    assert caught.value.exit_code == 3
    assert "mlpack-toolchain[torch-tensorrt]" in caught.value.hint
    installed(tmp_path, "torch-tensorrt-fits", "1", "torch>=2.9", "no-such-distribution>=3")
    assert unmet("torch-tensorrt-fits") == ["no-such-distribution>=3 (here: none)"]


def test_the_original_runs_where_its_user_runs_it(kept):
    model, here = kept.factory("mlp"), A100.model_copy(update={"here": True})
    assert as_run_today(model, here, "13.0").backend_options.device == "cuda"
    for target, cuda in ((here, None), (A100.model_copy(update={"here": False}), "13.0"), (HERE, "13.0")):
        assert as_run_today(model, target, cuda) is model
    graph = kept.exported("mlp")
    assert as_run_today(graph, here, "13.0") is graph


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("name", ["conv_net", "transformer"])
@pytest.mark.parametrize("backend", ["torch", "torch_compile", "torch_cuda_graph"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_card_answers_as_the_cpu_does(kept, name, backend, precision):
    model = kept.factory(name)
    told = ON_CARD.model_copy(update={"precision": precision})
    most = {"float32": 2e-3, "bfloat16": 5e-2, "float16": 5e-3}[precision]
    with BACKENDS[backend].open(model, A100, told) as runner:
        # Each shape twice, so that a graph is recorded and replayed with other rows.
        for count, seed in ((1, 0), (4, 1), (1, 2), (4, 3)):
            rows = rows_for(name, count, seed)
            expected, found = answers(model, rows, "torch"), runner(rows)
            assert all(relative(array, found[output]) < most for output, array in expected.items())
            assert runner.device_ms() > 0


@pytest.mark.gpu
@needs_card
def test_graphs_of_many_shapes_are_forgotten_and_recorded_again(kept):
    model = kept.factory("mlp")
    with BACKENDS["torch_cuda_graph"].open(model, A100, ON_CARD) as runner:
        for count in (*range(1, 21), 1, 20):
            rows = rows_for("mlp", count, seed=count)
            assert relative(answers(model, rows, "torch")["output"], runner(rows)["output"]) < 1e-3


@pytest.mark.gpu
@needs_card
def test_an_exported_program_moves_to_the_card(bench, exported_file):
    model, rows = bench.load(exported_file), rows_for("conv_net", 3)
    with BACKENDS["torch"].open(model, A100, ON_CARD) as runner:
        expected, found = answers(model, rows, "torch"), runner(rows)
        assert all(relative(array, found[output]) < 2e-3 for output, array in expected.items())


@pytest.mark.gpu
@pytest.mark.skipif(lacking() is not None, reason="Torch-TensorRT is not installed, or for other versions")
@needs_card
def test_torch_tensorrt_answers_as_the_cpu_does(kept):
    model = kept.factory("conv_net")
    with BACKENDS["torch_tensorrt"].open(model, A100, ON_CARD) as runner:
        for count in (1, 4):
            rows = rows_for("conv_net", count, seed=count)
            assert relative(answers(model, rows, "torch")["output"], runner(rows)["output"]) < 1e-3


# Last: a recording that was broken off may leave its stream unusable.
@pytest.mark.gpu
@needs_card
def test_a_module_that_waits_for_the_device_is_no_graph(kept):
    model = kept.factory("branching")
    with (
        BACKENDS["torch_cuda_graph"].open(model, A100, ON_CARD) as runner,
        pytest.raises(StageFailed, match=r"cannot be recorded as a CUDA graph on x \[2, 4\]"),
    ):
        runner(rows_for("branching", 2))
