"""Who may run a model here, and with which options it will be served."""

import onnxruntime as ort
import pytest
from doors import A100, VNNI, rows_for
from pydantic import ValidationError

from mlpack.backends import BACKENDS
from mlpack.core.backend_options import BackendOptions
from mlpack.core.provider import Cuda
from mlpack.core.targets import this_machine
from mlpack.errors import MissingHardware, StageFailed, UsageError
from mlpack.stages.compile import Compile
from mlpack.stages.quantize import Quantize


def proposed(model, target, **options):
    return [stage.backend for stage in Compile(**options).propose(model, target)]


def test_both_backends_are_proposed_for_fp32_on_this_machine(kept):
    assert proposed(kept.ready("mlp"), this_machine()) == ["onnxruntime", "openvino"]
    assert proposed(kept.ready("mlp"), this_machine(), backend="openvino") == ["openvino"]


def test_only_openvino_is_proposed_for_bf16(kept):
    model = kept.ready("mlp").model_copy(update={"numerics": "bf16"})
    told = Compile().options(model, this_machine(), 1)
    assert told.precision == "bfloat16"
    if BACKENDS["openvino"].refusal(model, this_machine(), told):
        assert proposed(model, this_machine()) == []
    else:
        assert proposed(model, this_machine()) == ["openvino"]
    with pytest.raises(UsageError, match="onnxruntime cannot run this bf16 model"):
        Compile(backend="onnxruntime").propose(model, this_machine())


def test_the_graph_of_an_absent_card_is_opened_literally(bench, kept):
    stage = Quantize(numerics="int8", method="static", operators="weighted")
    job = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 32))}, target=A100)
    model = stage.run(kept.ready("mlp"), job).model
    assert proposed(model, A100) == ["onnxruntime"]
    compiled = Compile(backend="onnxruntime").run(model, bench.job(target=A100)).model
    assert compiled.backend == "onnxruntime"
    assert compiled.backend_options == BackendOptions(threads=1, graph_optimizations="off")
    x = rows_for("mlp", 2)
    spent = BACKENDS["onnxruntime"].operators(compiled, A100, compiled.backend_options, x)
    operators = {each.operator for each in spent}
    assert {"QuantizeLinear", "DequantizeLinear", "Gemm"} <= operators, "nothing was fused into integer kernels"


def test_what_will_serve_is_written_down_and_was_run(bench, kept):
    outcome = Compile(backend="openvino").run(kept.ready("mlp"), bench.job(threads=1))
    assert outcome.model.backend == "openvino"
    assert outcome.model.backend_options == BackendOptions(threads=1)
    assert outcome.report.metrics["outputs"] == {"output": [1, 3]}
    assert outcome.model.entry_path == kept.ready("mlp").entry_path


@pytest.mark.parametrize(("threads", "fewer"), [(1, []), (2, [1]), (6, [3, 1]), (8, [4, 2, 1])])
def test_fewer_threads_are_half_as_many_down_to_one(threads, fewer):
    assert [stage.most_threads for stage in Compile(backend="openvino").fewer_threads(threads)] == fewer
    assert not Compile(most_threads=threads).fewer_threads(threads)


def test_a_bound_on_threads_is_kept_to_and_written_down(bench, kept):
    told = [
        Compile(backend="onnxruntime", most_threads=2).run(kept.ready("mlp"), bench.job(threads=threads)).model
        for threads in (1, 3)
    ]
    assert [model.backend_options.threads for model in told] == [1, 2]
    assert [model.backend_options.with_threads(4).threads for model in told] == [2, 2]
    assert BackendOptions().with_threads(4).threads == 4


def test_a_damaged_graph_is_a_failed_stage(bench, kept):
    out = bench.job().out
    (out / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(StageFailed):
        Compile(backend="onnxruntime").run(kept.ready("mlp").model_copy(update={"path": out}), bench.job())


def test_no_backend_at_all_is_a_failed_stage(bench, kept):
    with pytest.raises(StageFailed, match="no backend"):
        Compile().run(kept.ready("mlp"), bench.job(target=VNNI))


def test_a_misspelt_backend_gets_the_nearest_name():
    with pytest.raises((UsageError, ValidationError), match="onnxruntim"):
        Compile(backend="onnxruntim")


CARD = A100.model_copy(update={"here": True})
CUDA, TENSORRT = Compile(provider={"name": "cuda"}), Compile(provider={"name": "tensorrt", "workspace_mib": 512})


def test_a_provider_is_for_a_card_that_is_here_and_for_onnxruntime():
    assert "A100" in TENSORRT.refusal(A100)
    assert "is not here" in TENSORRT.refusal(A100)
    assert "the provider cuda computes on a card" in CUDA.refusal(this_machine())
    assert CUDA.refusal(CARD) is None
    assert Compile(backend="openvino", provider={"name": "cuda"}).clash() == (
        "provider is for onnxruntime, and this is openvino"
    )
    with pytest.raises(ValidationError, match="half"):
        Compile(provider={"name": "tensorrt", "half": True})


def test_on_a_card_the_session_computes_there(kept):
    model = kept.ready("mlp")
    assert Compile().options(model, CARD, 1) == BackendOptions(threads=1, device="cuda")
    told = TENSORRT.options(model, CARD, 1)
    assert (told.device, told.provider.name, told.provider.workspace_mib, told.provider.tf32) == (
        "cuda", "tensorrt", 512, False,
    )  # fmt: skip
    assert Compile().options(model, A100, 1).device == "cpu"


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this build has CUDA")
@pytest.mark.parametrize("stage", [Compile(), CUDA, TENSORRT], ids=["any", "cuda", "tensorrt"])
def test_a_card_without_its_provider_is_no_cpu(kept, stage):
    with pytest.raises(MissingHardware, match="onnxruntime: this build of onnxruntime has no") as caught:
        stage.propose(kept.ready("mlp"), CARD)
    assert (caught.value.exit_code, caught.value.hint) == (3, "pip install onnxruntime-gpu")


def test_every_provider_is_proposed_where_there_is_one(kept, monkeypatch):
    found = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: found)
    model = kept.ready("mlp")
    assert [stage.provider.name for stage in Compile().propose(model, CARD)] == ["cuda", "tensorrt"]
    assert [stage.provider for stage in CUDA.propose(model, CARD)] == [Cuda()]
    found.remove("TensorrtExecutionProvider")
    assert [stage.provider.name for stage in Compile().propose(model, CARD)] == ["cuda"]


def test_threads_that_sleep_are_those_of_onnxruntime(bench, kept):
    stage = Compile(waiting="sleep")
    assert [way.backend for way in stage.propose(kept.ready("mlp"), this_machine())] == ["onnxruntime"]
    assert Compile(backend="openvino", waiting="sleep").clash() == "waiting is for onnxruntime, and this is openvino"
    (way,) = stage.propose(kept.ready("mlp"), this_machine())
    told = way.run(kept.ready("mlp"), bench.job(threads=2)).model.backend_options
    assert told == BackendOptions(threads=2, waiting="sleep")
