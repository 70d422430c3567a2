"""Engines that TensorRT-RTX builds without a card: what the parser takes, types, sizes, and what is refused."""

import importlib.util

import numpy as np
import onnx
import pytest
from doors import A100, VNNI, Bench, rows_for
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from mlpack.backends import BACKENDS
from mlpack.backends.tensorrt_plan import LOG, RECORD, TIMING_CACHE, build_of
from mlpack.core.backend_options import BackendOptions
from mlpack.core.machine import nvidia_devices
from mlpack.core.model import Model, TensorSpec
from mlpack.core.targets import load_target
from mlpack.errors import (
    MissingHardware,
    MissingLibrary,
    ModelError,
    StageFailed,
    UnsupportedNumerics,
    UsageError,
)  # fmt: skip
from mlpack.stages.build_engine import BuildEngine
from mlpack.stages.compile import Compile
from mlpack.stages.quantize import Quantize

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX has no wheel for this platform"
)
TARGETS = {"8.0": A100, "8.6": load_target("a10"), "12.0": load_target("rtx5090")}
RTX = BuildEngine(library="tensorrt_rtx")
needs_no_card = pytest.mark.skipif(bool(nvidia_devices()), reason="there is a card here")


def numbered(bench, ready, numerics, rows):
    """The graph in these numerics, by the rules of NVIDIA targets."""
    if numerics == "fp32":
        return ready
    static = {"method": "static", "operators": "all", "samples": 16} if numerics == "int8" else {"method": "cast"}
    parts = {"calibration": bench.data(**rows)}
    return Quantize(numerics=numerics, **static).run(ready, bench.job(target=A100, parts=parts)).model


def engine(bench, model, stage=RTX, target=A100):
    return stage.run(model, bench.job(target=target)).model


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, kept):
    """The convolutional net and the transformer of the tests, in each kind of numerics."""
    bench = Bench(tmp_path_factory.mktemp("graphs"))
    return {
        (name, numerics): numbered(bench, kept.ready(name), numerics, rows_for(name, 32))
        for name in ("residual", "transformer")
        for numerics in ("fp32", "fp16", "int8")
    }


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("numerics", ["fp32", "fp16", "int8"])
def test_a_convolutional_net_is_built_for_cards_that_are_not_here(bench, graphs, numerics, capability):
    model = engine(bench, graphs["residual", numerics], target=TARGETS[capability])
    build = build_of(model)
    assert (model.format, model.entry, model.numerics) == ("tensorrt", "model.plan", numerics)
    assert model.entry_path.stat().st_size == build.plan_bytes
    assert (build.library, build.compute_capability) == ("tensorrt_rtx", capability)
    assert {path.name for path in model.files()} == {"model.plan", LOG, RECORD}, "its builder times no kernels"
    assert "error" not in (model.path / LOG).read_text().lower()
    # Four convolutions and a linear layer.
    assert sum(build.compute.values()) == 5
    assert build.compute == {"HALF" if numerics == "fp16" else "FLOAT": 5}
    assert build.quantized == (5 if numerics == "int8" else 0)
    assert build.layers.get("QUANTIZE", 0) == (build.tensors.get("INT8", 0) if numerics == "int8" else 0)


@pytest.mark.parametrize("name", ["residual", "transformer"])
@pytest.mark.parametrize("target", ["l4", "rtx5090"])
def test_fp8_is_built_for_the_cards_that_have_it(bench, kept, name, target):
    card = load_target(target)
    parts = {"calibration": bench.data(**rows_for(name, 32))}
    stage = Quantize(numerics="fp8", method="static", operators="weighted", samples=16)
    build = build_of(engine(bench, stage.run(kept.ready(name), bench.job(target=card, parts=parts)).model, target=card))
    assert build.tensors["FP8"] == build.layers["QUANTIZE"]
    assert build.quantized >= 4
    assert "INT8" not in build.tensors


def test_a_graph_of_fp16_is_one_of_halves(bench, graphs):
    build = build_of(engine(bench, graphs["residual", "fp16"]))
    assert build.layers["CAST"] == 2, "inputs and outputs keep their own types"
    assert build.tensors["FLOAT"] == 1, "the output alone"
    assert build.tensors["HALF"] > 10


@pytest.mark.parametrize("numerics", ["fp32", "fp16", "int8"])
def test_a_transformer_is_built(bench, graphs, numerics):
    build = build_of(engine(bench, graphs["transformer", numerics]))
    assert build.layers["SOFTMAX"] == 2
    assert (build.quantized > 0) == (numerics == "int8")
    assert set(build.compute) == ({"HALF"} if numerics == "fp16" else {"FLOAT"})


def test_the_profile_spans_the_batches_and_every_free_dim(bench, graphs):
    model = graphs["residual", "fp32"]
    done = BuildEngine(library="tensorrt_rtx", batches=(2, 4, 16)).run(model, bench.job(target=A100))
    assert done.report.metrics["profile"] == {
        "image": {"smallest": [2, 3, 8, 8], "usual": [4, 3, 8, 8], "largest": [16, 3, 8, 8]}
    }
    told = {row["kind"]: row["count"] for row in done.report.tables["compute"]}
    assert told == build_of(done.model).compute
    static = graph_of(bench, [helper.make_node("Relu", ["x"], ["y"])], (4, 6))
    assert build_of(engine(bench, static)).profile["x"].smallest == (4, 6), "a batch that is fixed stays"
    free = graph_of(bench, [helper.make_node("Relu", ["x"], ["y"])], ("batch", "length"))
    known = free.model_copy(update={"largest": {"length": 12}})
    span = build_of(engine(bench, known)).profile["x"]
    assert (span.smallest, span.usual, span.largest) == ((1, 1), (8, 12), (32, 12))
    with pytest.raises(ModelError, match="free dim 'length' of which no largest size") as caught:
        engine(bench, free)
    assert caught.value.hint.endswith("--set 'build_engine.dims={length: [1, 32, 128]}'")
    told = BuildEngine(library="tensorrt_rtx", dims={"length": (2, 3, 4)})
    assert build_of(engine(bench, free, told)).profile["x"].usual == (8, 3)
    with pytest.raises(ValidationError, match="smallest, usual and largest"):
        BuildEngine(batches=(8, 1, 32))


def graph_of(bench, nodes, dims, numerics="fp32", weights=()):
    """A Model of a graph written by hand, from x to y."""
    job = bench.job()
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(weights),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, job.out / "model.onnx")
    specs = {name: (TensorSpec(name=name, dtype="float32", dims=dims),) for name in "xy"}
    return Model(
        path=job.out, entry="model.onnx", format="onnx", inputs=specs["x"], outputs=specs["y"], numerics=numerics
    )


@pytest.mark.parametrize("option", ["refittable", "stripped"])
@needs_no_card
def test_what_is_built_on_a_card_only_is_refused_in_a_line(bench, graphs, option):
    stage = BuildEngine(library="tensorrt_rtx", weights=option)
    with pytest.raises(MissingHardware, match=f"builds {option} engines on a card only"):
        engine(bench, graphs["residual", "fp32"], stage)


def test_options_that_this_builder_has(bench, graphs):
    model = graphs["residual", "fp32"]
    one = build_of(engine(bench, model))
    assert (one.tf32, one.weights, one.hardware) == (False, "constants", "target")
    told = {"weights": "streamed", "tf32": True, "hardware": "ampere_plus", "workspace_mib": 64}
    other = build_of(engine(bench, model, BuildEngine(library="tensorrt_rtx", **told)))
    assert (other.tf32, other.weights, other.hardware) == (True, "streamed", "ampere_plus")
    with pytest.raises(UsageError, match="no version-compatible engines"):
        engine(bench, model, BuildEngine(library="tensorrt_rtx", version_compatible=True))


def test_nodes_that_the_parser_has_no_layer_for_are_named(bench):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="stem/relu"),
        helper.make_node("Bernoulli", ["r"], ["b"], name="stem/draw"),
        helper.make_node("Det", ["b"], ["y"], name="head/det"),
    ]
    job = bench.job(target=A100)
    with pytest.raises(StageFailed, match=r"has no layer for Bernoulli \(stem/draw\), Det \(head/det\)$") as caught:
        RTX.run(graph_of(bench, nodes, ("batch", 4, 4)), job)
    assert "--backend onnxruntime" in caught.value.hint
    assert "head/det" in (job.out / LOG).read_text()


def test_a_file_that_is_no_graph_is_refused(bench):
    model = graph_of(bench, [helper.make_node("Relu", ["x"], ["y"])], ("batch", 4))
    model.entry_path.write_bytes(b"nonsense")
    with pytest.raises(StageFailed, match=r"cannot read this graph: .*Failed to parse the ONNX model"):
        engine(bench, model)


def test_a_promise_of_types_that_the_network_lacks_is_refused(bench):
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    for numerics in ("fp16", "int8"):
        model = graph_of(bench, nodes, ("batch", 4), numerics, [weight])
        with pytest.raises(StageFailed, match=f"compute nothing of this {numerics} graph in {numerics}"):
            engine(bench, model)


def test_weights_decide_the_size_of_the_plan(bench):
    """8 million of them: beside that the plan's own kernels, half a megabyte, are nothing."""
    random = np.random.default_rng(0)
    weights, nodes, last = [], [], "x"
    for layer in range(2):
        weights.append(numpy_helper.from_array(random.standard_normal((2048, 2048)).astype(np.float32), f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"], name=f"m{layer}"),
            helper.make_node("Relu", [f"m{layer}"], [last := f"r{layer}" if layer == 0 else "y"]),
        ]
    model = graph_of(bench, nodes, ("batch", 2048), weights=weights)
    rows = {"x": random.standard_normal((16, 2048)).astype(np.float32)}
    size = {
        numerics: build_of(engine(bench, numbered(bench, model, numerics, rows))).plan_bytes
        for numerics in ("fp32", "fp16", "int8")
    }
    assert size["fp16"] < 0.6 * size["fp32"]
    assert size["int8"] < 0.6 * size["fp16"]


def test_targets_and_libraries_are_checked_first(bench, graphs, monkeypatch, tmp_path):
    model = graphs["residual", "fp32"]
    assert "TensorRT builds for NVIDIA cards" in RTX.refusal(VNNI)
    assert "needs compute capability 7.5" in RTX.refusal(load_target("v100"))
    assert RTX.refusal(A100) is None
    with pytest.raises(UnsupportedNumerics, match="builds for NVIDIA cards"):
        engine(bench, model, target=VNNI)
    with pytest.raises(MissingLibrary, match=r"builds for SM75, .*and NVIDIA H100 SXM 80 GB is SM90"):
        engine(bench, model, target=load_target("h100"))
    assert BuildEngine().builder(A100) == "tensorrt_rtx"
    assert RTX.lacks() is None
    assert RTX.keyed()["builders"]["tensorrt_rtx"].startswith("1.")
    older = tmp_path / "tensorrt_rtx_cu13_bindings-1.2.0.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.4\nName: tensorrt_rtx_cu13_bindings\nVersion: 1.2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingLibrary, match=r"TensorRT-RTX 1.2.0 is installed, and .*1.7.* is wanted") as caught:
        engine(bench, model)
    assert (caught.value.exit_code, caught.value.hint) == (3, "pip install 'mlpack-toolchain[tensorrt-rtx]'")
    assert "1.2.0" in RTX.lacks()


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_tensorrt_itself_is_missing_here(bench, graphs):
    with pytest.raises(MissingLibrary, match="TensorRT is not installed") as caught:
        engine(bench, graphs["residual", "fp32"], BuildEngine(library="tensorrt"))
    assert caught.value.hint == "pip install 'tensorrt>=11,<12'"


@needs_no_card
def test_an_engine_runs_on_a_card_only(bench, graphs):
    model = engine(bench, graphs["residual", "fp32"])
    backend = BACKENDS["tensorrt"]
    assert backend.refusal(model, A100, BackendOptions()) == "there is no NVIDIA device"
    with (
        pytest.raises(MissingHardware, match="cannot run here: there is no NVIDIA device") as caught,
        backend.open(model, A100, BackendOptions()),
    ):
        pass
    assert caught.value.exit_code == 3
    with pytest.raises(UsageError, match="tensorrt cannot run this fp32 model: there is no NVIDIA device"):
        Compile(backend="tensorrt").propose(model, A100)


@pytest.mark.gpu
@pytest.mark.skipif(not nvidia_devices(), reason="there is no NVIDIA card")
@pytest.mark.parametrize("numerics", ["fp32", "fp16", "int8"])
def test_an_engine_answers_as_the_graph_does(bench, kept, graphs, numerics):
    from doors import answers, relative

    (device, *_) = nvidia_devices()
    known = (load_target(name) for name in ("t4", "a10", "a100", "l4", "h100", "h200", "b200", "rtx5090"))
    found = (each for each in known if each.compute_capability == device.compute_capability)
    target = next(found).model_copy(update={"here": True})
    model = engine(bench, graphs["residual", numerics], BuildEngine(), target)
    assert (TIMING_CACHE in {path.name for path in model.files()}) == (build_of(model).library == "tensorrt")
    with BACKENDS["tensorrt"].open(model, target, BackendOptions(device="cuda")) as runner:
        for count in (1, 8, 32):
            rows = rows_for("residual", count, seed=count)
            expected = answers(graphs["residual", numerics], rows, graph_optimizations="off")
            assert (
                relative(expected["output"], runner(rows)["output"])
                < {"fp32": 1e-4, "fp16": 5e-3, "int8": 5e-2}[numerics]
            )
            assert runner.device_ms() > 0
