"""The Triton package: its configuration against Triton's own schema, the ONNX graph and kept examples.

`MLPACK_WRITE_GOLDEN=1 pytest tests/runtimes/test_triton_package.py` writes the examples anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import yaml
from google.protobuf import text_format
from tiny_artifacts import make
from tritonclient.grpc import model_config_pb2

from mlpack.core.runtime import PackageOptions
from mlpack.errors import UsageError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from mlpack.core.artifact import Stored

GOLDEN = Path(__file__).parent / "golden"
ONNX_TYPES = {"FLOAT": "TYPE_FP32", "INT64": "TYPE_INT64", "BOOL": "TYPE_BOOL"}
OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino", "model__numerics": "bf16",
            "model__backend_options": {"threads": 2, "precision": "bfloat16"}}  # fmt: skip
A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8", "accuracy__simulated": True,
        "model__backend_options": {"threads": 2, "graph_optimizations": "off"}, "latency": []}  # fmt: skip
ON_CARD = {**A100, "accuracy__simulated": False, "target": {"name": "a100", "kind": "cuda"}}
CUDA = {"threads": 2, "device": "cuda", "provider": {"name": "cuda", "convolutions": "heuristic", "memory_mib": 1024}}
TENSORRT = {"threads": 2, "device": "cuda", "provider": {"name": "tensorrt", "tf32": True, "workspace_mib": 512}}
CASES = {
    "merged": ("mlp", {}, {"max_batch": 8}),
    "batch_dependent": ("text", {"accuracy__batch_dependent": True, "accuracy__batch": 4}, {"max_batch": 8}),
    "static": ("mlp", {"batch": 3}, {}),
    "openvino": ("text", OPENVINO, {"max_batch": 16, "queue_delay_ms": 0.5, "instances": 2}),
    "tensorrt": ("slow", A100, {"max_batch": 16}),
    "tensorrt_free_dims": ("text", A100, {"max_batch": 16}),
    "bounded": ("mlp", {}, {"max_batch": 4, "timeout_ms": 250.0, "cache": "memory", "cache_mb": 16}),
    "cuda_measured": ("slow", {**ON_CARD, "model__backend_options": CUDA}, {"max_batch": 16}),
    "tensorrt_measured": ("slow", {**ON_CARD, "model__backend_options": TENSORRT}, {"max_batch": 16}),
    "own_openvino": ("text", OPENVINO, {"triton_backend": "own"}),
    "python_onnxruntime": ("mlp", {}, {"triton_backend": "python"}),
    "limited": ("mlp", {"environment__cpus": 4}, {"instances": 4, "limit_threads": 2, "priority": 3}),
}


def build(folder: Path, case: str) -> tuple[Stored, dict[str, object], PackageOptions]:
    kind, changes, options = CASES[case]
    stored = make(folder, kind, **changes)
    # The digest depends on installed versions; the examples must not.
    stored = stored.model_copy(update={"artifact": stored.artifact.model_copy(update={"digest": "d" * 64})})
    chosen = PackageOptions(**options)
    return stored, dict(RUNTIMES["triton"].layout(stored, chosen)), chosen


def parsed(stored: Stored, layout: dict) -> model_config_pb2.ModelConfig:
    text = layout[f"model_repository/{stored.artifact.name}/config.pbtxt"]
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def sides(config) -> dict[str, dict[str, tuple[str, list[int]]]]:
    name = model_config_pb2.DataType.Name
    return {
        side: {each.name: (name(each.data_type), list(each.dims)) for each in getattr(config, side)}
        for side in ("input", "output")
    }


@pytest.mark.parametrize("case", CASES)
def test_the_config_is_the_kept_example(tmp_path, case):
    stored, layout, _ = build(tmp_path, case)
    text = layout[f"model_repository/{stored.artifact.name}/config.pbtxt"]
    path = GOLDEN / f"{case}.pbtxt"
    if os.environ.get("MLPACK_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("case", CASES)
def test_the_config_says_what_the_graph_says(tmp_path, case):
    stored, layout, _ = build(tmp_path, case)
    config = parsed(stored, layout)
    graph = onnx.load(stored.model.entry_path, load_external_data=False).graph
    for side, values in (("input", graph.input), ("output", graph.output)):
        written = sides(config)[side]
        assert list(written) == [value.name for value in values]
        for value in values:
            tensor = value.type.tensor_type
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
            if config.max_batch_size:
                assert dims[0] == -1
                dims = dims[1:] or [1]
            assert written[value.name] == (ONNX_TYPES[onnx.TensorProto.DataType.Name(tensor.elem_type)], dims)


@pytest.mark.parametrize("case", CASES)
def test_name_version_and_every_file_are_where_triton_looks(tmp_path, case):
    stored, layout, options = build(tmp_path, case)
    config = parsed(stored, layout)
    root = f"model_repository/{config.name}"
    assert list(config.version_policy.specific.versions) == [1]
    assert layout[f"{root}/1/model.onnx"] == stored.model.entry_path
    assert layout[f"{root}/1/model.onnx.data"] == stored.model.path / "model.onnx.data"
    assert config.instance_group[0].count == options.instances
    assert config.response_cache.enable == (options.cache == "memory")
    under_model = {path.removeprefix(f"{root}/").split("/")[0] for path in layout if path.startswith(root)}
    assert under_model <= {"1", "config.pbtxt", "warmup"}


@pytest.mark.parametrize("case", CASES)
def test_warm_up_is_the_first_golden_sample_raw(tmp_path, case):
    stored, layout, _ = build(tmp_path, case)
    config = parsed(stored, layout)
    inputs = np.load(stored.path / "golden" / "inputs.npz")
    assert config.model_warmup
    for warmup in config.model_warmup:
        assert warmup.batch_size in {1, config.max_batch_size}
        assert set(warmup.inputs) == {each.name for each in config.input}
        for name, value in warmup.inputs.items():
            raw = layout[f"model_repository/{config.name}/warmup/{value.input_data_file}"]
            rows = 3 if case == "static" else 1
            expected = inputs[name][:rows]
            assert np.array_equal(np.frombuffer(raw, expected.dtype), expected.ravel())
            assert list(value.dims) == list(expected.shape[0 if case == "static" else 1 :])


def test_merged_batches_prefer_what_was_measured(tmp_path):
    stored, layout, _ = build(tmp_path, "merged")
    config = parsed(stored, layout)
    assert (config.platform, config.backend, config.max_batch_size) == ("onnxruntime_onnx", "onnxruntime", 8)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    score = config.output[1]
    assert (list(score.dims), score.HasField("reshape"), list(score.reshape.shape)) == ([1], True, [])


def test_batch_dependent_models_are_never_batched_beyond_what_was_judged(tmp_path):
    stored, layout, _ = build(tmp_path, "batch_dependent")
    config = parsed(stored, layout)
    assert not config.HasField("dynamic_batching")
    assert config.max_batch_size == 4
    assert [each.batch_size for each in config.model_warmup] == [1]


def test_static_batches_are_whole_shapes(tmp_path):
    stored, layout, _ = build(tmp_path, "static")
    config = parsed(stored, layout)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert list(config.input[0].dims) == [3, 8]


def test_openvino_runs_in_the_precision_and_version_that_was_scored(tmp_path):
    stored, layout, _ = build(tmp_path, "openvino")
    config = parsed(stored, layout)
    assert (config.backend, config.platform) == ("python", "")
    # With a name here Triton's Python backend would look for its Python file under it.
    assert config.default_model_filename == ""
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert values == {
        "library": "openvino", "model_filename": "model.onnx", "execution_precision": "bfloat16", "threads": "2",
    }  # fmt: skip
    assert layout["model_repository/tiny-text/1/model.py"].name == "model.py"
    pinned = stored.artifact.environment["libraries"]["openvino"]
    assert f"pip3 install --no-cache-dir openvino=={pinned} numpy==1." in layout["Dockerfile"]


@pytest.mark.parametrize("case", ["tensorrt", "tensorrt_free_dims"])
def test_gpu_targets_get_the_tensorrt_provider(tmp_path, case):
    stored, layout, _ = build(tmp_path, case)
    config = parsed(stored, layout)
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind) == "KIND_GPU"
    accelerator, beneath = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (beneath.name, dict(beneath.parameters)) == ("cuda", {"use_tf32": "0"})
    assert "ENV NVIDIA_TF32_OVERRIDE=0" in layout["Dockerfile"]
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "INT8"
    # Graph optimizations were off only to simulate the target: the level must not follow into the server.
    assert not config.optimization.HasField("graph")
    shapes = accelerator.parameters.get("trt_profile_max_shapes")
    assert shapes == ("features:16x700" if case == "tensorrt" else None)
    assert "TensorRT builds its engine on the GPU" in layout["README.md"]
    assert yaml.safe_load(layout["compose.yaml"])["volumes"] == {"tensorrt": None}


def test_a_provider_that_was_measured_serves_with_its_options(tmp_path):
    _, layout, _ = built = build(tmp_path / "cuda", "cuda_measured")
    config = parsed(*built[:2])
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    told = {key: value.string_value for key, value in config.parameters.items()}
    assert told == {"cudnn_conv_algo_search": "1", "gpu_mem_limit": str(2**30)}
    assert "as it was measured" in layout["README.md"]
    _, layout, _ = built = build(tmp_path / "tensorrt", "tensorrt_measured")
    accelerator, beneath = parsed(*built[:2]).optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["max_workspace_size_bytes"] == str(2**29)
    assert accelerator.parameters["trt_builder_optimization_level"] == "3"
    assert dict(beneath.parameters) == {"use_tf32": "1"}
    assert "NVIDIA_TF32_OVERRIDE" not in layout["Dockerfile"]
    assert "as it did where it was measured" in layout["README.md"]


def test_an_option_that_triton_cannot_be_told_is_refused(tmp_path):
    stored = make(tmp_path, model__backend_options={"threads": 2, "waiting": "sleep"})
    with pytest.raises(UsageError, match="threads that sleep while they wait") as caught:
        RUNTIMES["triton"].layout(stored, PackageOptions())
    assert "--runtime fastapi" in caught.value.hint
    layout = RUNTIMES["triton"].layout(stored, PackageOptions(triton_backend="python"))
    assert parsed(stored, dict(layout)).parameters["waiting"].string_value == "sleep"
    described = json.loads(RUNTIMES["fastapi"].layout(stored, PackageOptions())["model.json"])
    assert described["options"]["waiting"] == "sleep"


def test_names_with_quotes_survive(tmp_path):
    stored = make(tmp_path)
    odd = 'a "b" \\ é'
    spec = stored.artifact.model.inputs[0].model_copy(update={"name": odd})
    record = stored.artifact.model.model_copy(update={"inputs": (spec,)})
    renamed = stored.model_copy(update={"artifact": stored.artifact.model_copy(update={"model": record})})
    arrays = np.load(stored.path / "golden" / "inputs.npz")
    np.savez(stored.path / "golden" / "inputs.npz", **{odd: arrays["features"]})
    config = parsed(renamed, dict(RUNTIMES["triton"].layout(renamed, PackageOptions())))
    assert config.input[0].name == odd
    assert list(config.model_warmup[0].inputs) == [odd]


@pytest.mark.parametrize("runtime", ["triton", "fastapi"])
def test_another_backend_than_the_scored_one_is_refused(tmp_path, runtime):
    stored = make(tmp_path, accuracy__backend="openvino")
    with pytest.raises(UsageError) as caught:
        RUNTIMES[runtime].layout(stored, PackageOptions())
    assert "served by onnxruntime but its accuracy was scored on openvino" in caught.value.message
    assert caught.value.hint == f"mlpack optimize {stored.artifact.source.path} --backend onnxruntime"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model__format": "torch", "model__backend": "torch", "accuracy__backend": "torch"},
            "torch run by torch",
        ),
        (
            {"model__format": "tensorrt", "parent": {"name": "tiny-mlp", "version": 7, "digest": "d" * 64}},
            "packages serve ONNX models only",
        ),
        ({"golden": {}}, "no golden tolerance for output 'logits'"),
    ],
)
@pytest.mark.parametrize("runtime", ["triton", "fastapi"])
def test_what_cannot_be_served_is_refused(tmp_path, runtime, changes, said):
    with pytest.raises(UsageError) as caught:
        RUNTIMES[runtime].layout(make(tmp_path, **changes), PackageOptions())
    assert said in caught.value.message
    assert caught.value.hint
    assert ("tiny-mlp@7" in caught.value.hint) == ("parent" in changes)


def test_fastapi_refuses_a_gpu_artifact_and_names_triton(tmp_path):
    with pytest.raises(UsageError) as caught:
        RUNTIMES["fastapi"].layout(make(tmp_path, **A100), PackageOptions())
    assert caught.value.hint == "mlpack package tiny-mlp@1 --runtime triton"


@pytest.mark.parametrize("runtime", ["triton", "fastapi"])
def test_every_package_has_what_every_package_has(tmp_path, runtime):
    stored = make(tmp_path)
    layout = RUNTIMES[runtime].layout(stored, PackageOptions())
    docker = layout["Dockerfile"]
    assert f'io.mlpack.artifact.digest="{stored.artifact.digest}"' in docker
    assert "HEALTHCHECK" in docker
    assert "torch" not in docker + str(layout.get("requirements.txt", ""))
    user = next(line for line in docker.splitlines() if line.startswith("USER "))
    assert user not in {"USER root", "USER 0"}
    readme = layout["README.md"].strip().splitlines()
    assert len(readme) <= 11
    assert any("curl -s http://127.0.0.1:8000/v2/models/tiny-mlp/infer" in line for line in readme)
    golden = json.loads(layout["golden/golden.json"])
    assert golden["tolerance"] == stored.artifact.golden["tolerance"]
    assert golden["rows_per_request"] == 1
    assert yaml.safe_load(layout["compose.yaml"])["services"]["tiny-mlp"]["ports"][0] == "127.0.0.1:8000:8000"
    assert {"client.py", ".dockerignore", "golden/inputs.npz", "golden/outputs.npz"} <= layout.keys()


@pytest.mark.parametrize("case", ["tensorrt", "tensorrt_free_dims"])
def test_an_engine_is_served_as_the_graph_would_be(tmp_path, case):
    stored, layout, _ = build(tmp_path, case)
    engine = text_format.Parse(layout["engine/config.pbtxt"], model_config_pb2.ModelConfig())
    graph = parsed(stored, layout)
    assert (engine.platform, engine.backend, engine.default_model_filename) == (
        "tensorrt_plan", "tensorrt", "model.plan",
    )  # fmt: skip
    for served in (engine, graph):
        for field in ("platform", "backend", "default_model_filename", "optimization"):
            served.ClearField(field)
    assert engine == graph
    assert (
        'CMD ["python3", "/opt/mlpack/verified.py", "python3", "/opt/engine/start.py", "tritonserver", '
        in layout["Dockerfile"]
    )


def test_triton_s_own_openvino_backend_is_told_what_it_can_be(tmp_path):
    stored, layout, _ = build(tmp_path / "bf16", "own_openvino")
    config = parsed(stored, layout)
    assert (config.backend, config.platform, config.default_model_filename) == ("openvino", "", "model.onnx")
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "2", "NUM_STREAMS": "1", "HINT_BF16": "YES",
        "ENABLE_BATCH_PADDING": "YES",
    }  # fmt: skip
    assert "pip3 install" not in layout["Dockerfile"]
    exact = make(tmp_path / "fp32", "text", **{**OPENVINO, "model__backend_options": {"threads": 2}})
    layout = dict(RUNTIMES["triton"].layout(exact, PackageOptions(triton_backend="own")))
    assert "HINT_BF16" not in parsed(exact, layout).parameters
    assert "cannot be told float32" in layout["README.md"]


def test_a_model_runs_in_the_python_backend_in_the_version_that_was_scored(tmp_path):
    stored, layout, _ = build(tmp_path, "python_onnxruntime")
    config = parsed(stored, layout)
    assert (config.backend, config.platform, config.default_model_filename) == ("python", "", "")
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "library": "onnxruntime", "model_filename": "model.onnx", "graph_optimizations": "all", "threads": "1",
        "waiting": "spin",
    }  # fmt: skip
    assert layout["model_repository/tiny-mlp/1/model.py"].name == "model.py"
    pinned = stored.artifact.environment["libraries"]["onnxruntime"]
    assert f"onnxruntime=={pinned} numpy==1." in layout["Dockerfile"]


def test_threads_are_limited_for_all_models_of_a_server(tmp_path):
    stored, layout, _ = build(tmp_path, "limited")
    limiter = parsed(stored, layout).instance_group[0].rate_limiter
    assert [(each.name, getattr(each, "global"), each.count) for each in limiter.resources] == [("threads", True, 1)]
    assert limiter.priority == 3
    flags = '"--rate-limit=execution_count", "--rate-limit-resource=threads:2"]'
    assert layout["Dockerfile"].strip().endswith(flags)
    # Of one instance, by its own measurements; four of them fill the machine that it was timed on.
    assert (
        "timed on 4 CPUs: 4 copies fill them. Rows per second of one alone, by P50: 2,000 in batches of 1"
        in (layout["model_repository/tiny-mlp/config.pbtxt"])
    )
