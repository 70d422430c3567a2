"""Providers get the options that their libraries know, float32 stays float32, and what is absent is refused."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import small_graphs
from onnx import numpy_helper
from pydantic import ValidationError

from mlpack.backends import BACKENDS
from mlpack.backends.onnxruntime_providers import RECORDED, keep_float32, nodes_by_provider, providers
from mlpack.core.backend_options import BackendOptions
from mlpack.core.machine import nvidia_devices
from mlpack.core.provider import Cuda, TensorRt
from mlpack.core.settings import COMPILED
from mlpack.core.targets import load_target
from mlpack.errors import MissingHardware

HERE = load_target("cpu")
BACKEND = BACKENDS["onnxruntime"]
NAMES = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
needs_no_cuda = pytest.mark.skipif(NAMES["cuda"] in ort.get_available_providers(), reason="this build has CUDA")


def engines_of(model):
    return providers(model, on_card(TensorRt()))[0][1]["trt_engine_cache_path"]


def on_card(provider=None):
    return BackendOptions(threads=1, device="cuda", provider=provider)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cpu_has_no_options_of_a_provider(tmp_path):
    assert providers(small_graphs.mlp(tmp_path), BackendOptions()) == [("CPUExecutionProvider", {})]
    with pytest.raises(ValidationError, match="the device is the CPU"):
        BackendOptions(provider=Cuda())


def test_cuda_multiplies_float32_in_float32_unless_told_otherwise(tmp_path):
    model = small_graphs.mlp(tmp_path)
    usual = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
    assert providers(model, on_card()) == providers(model, on_card(Cuda())) == [(NAMES["cuda"], usual)]
    told = Cuda(tf32=True, convolutions="heuristic", memory_mib=2048)
    (_, options) = providers(model, on_card(told))[0]
    assert options == {"use_tf32": "1", "cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit": str(2 * 2**30)}


def test_tensorrt_stands_before_cuda_and_keeps_its_engines(tmp_path, cache):
    (first, told), (second, beneath) = providers(small_graphs.mlp(tmp_path), on_card(TensorRt(workspace_mib=512)))
    assert (first, second) == (NAMES["tensorrt"], NAMES["cuda"])
    assert beneath["use_tf32"] == "0"
    assert told["trt_max_workspace_size"] == str(512 * 2**20)
    assert told["trt_builder_optimization_level"] == "3"
    assert told["trt_engine_cache_path"].startswith(f"{cache / COMPILED}")
    assert Path(told["trt_engine_cache_path"]).is_dir()
    # TensorRT 11 takes the types of the graph: there is no permission to give.
    assert not [key for key in told if "fp16" in key or "int8" in key or "bf16" in key]


def test_models_of_one_structure_have_engines_of_their_own(tmp_path, cache):
    model = small_graphs.mlp(tmp_path)
    first = engines_of(model)
    assert engines_of(model) == first
    proto = onnx.load(model.entry_path)
    weights = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(2 * weights, proto.graph.initializer[0].name))
    onnx.save(proto, model.entry_path)
    assert engines_of(model) != first


@pytest.mark.parametrize(
    ("options", "expected"),
    [(BackendOptions(), None), (on_card(Cuda(tf32=True)), None), (on_card(), "0"), (on_card(TensorRt()), "0")],
)
def test_nvidia_libraries_are_told_before_they_are_loaded(monkeypatch, options, expected):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    # Set and removed again when the test ends, whatever it does.
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    keep_float32(options)
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == expected


def test_who_got_which_nodes_is_read_from_the_session(tmp_path):
    settings = ort.SessionOptions()
    settings.add_session_config_entry(RECORDED, "1")
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(small_graphs.mlp(tmp_path).entry_path, settings, providers=["CPUExecutionProvider"])
    assert nodes_by_provider(session) == Counter({"CPUExecutionProvider": 3})


@needs_no_cuda
@pytest.mark.parametrize("provider", [Cuda(), TensorRt()], ids=lambda each: each.name)
def test_an_absent_provider_is_refused_and_never_replaced(tmp_path, cache, provider):
    model = small_graphs.mlp(tmp_path)
    assert BACKEND.refusal(model, HERE, on_card(provider)) == f"this build of onnxruntime has no {NAMES[provider.name]}"
    with (
        pytest.raises(MissingHardware, match=NAMES[provider.name]) as caught,
        BACKEND.open(model, HERE, on_card(provider)),
    ):
        pass
    assert caught.value.exit_code == 3


@pytest.mark.gpu
@pytest.mark.skipif(not nvidia_devices(), reason="there is no NVIDIA card")
@pytest.mark.parametrize("provider", [Cuda(), TensorRt()], ids=lambda each: each.name)
def test_a_provider_answers_what_numpy_computes(tmp_path, cache, provider):
    if NAMES[provider.name] not in ort.get_available_providers():
        pytest.skip(f"this build of onnxruntime has no {NAMES[provider.name]}")
    model = small_graphs.mlp(tmp_path, width=512)
    with BACKEND.open(model, HERE, on_card(provider)) as runner:
        for count in (1, 3, 7):
            x = small_graphs.random(count, 8, seed=count)
            expected = small_graphs.mlp_by_numpy(model, x)
            away = np.linalg.norm(runner({"x": x})["y"] - expected) / np.linalg.norm(expected)
            assert away < 1e-5, "TF32 would be a hundred times as far"
