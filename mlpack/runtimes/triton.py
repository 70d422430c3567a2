"""The triton runtime: a model repository, its config.pbtxt derived from the model and its measurements."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.backends.onnxruntime_providers import MIB, provider
from mlpack.backends.tensorrt_plan import PLAN
from mlpack.core.provider import Cuda, TensorRt
from mlpack.errors import UsageError
from mlpack.runtimes.golden_side import golden_inputs, has_sample_request, shared_files
from mlpack.runtimes.kubernetes import Pod, Port, manifests
from mlpack.runtimes.package_files import (
    TEMPLATES,
    batching,
    check_cache,
    check_engine_fallback,
    check_servable,
    datatype,
    facts,
    model_files,
    on_gpu,
    pinned,
    queue_capacity,
    refuse_options,
    render,
)
from mlpack.runtimes.raw_side import raw_side
from mlpack.runtimes.requirements import bill_of_materials, needed_by
from mlpack.runtimes.triton_engine import engine_files, lacking
from mlpack.runtimes.triton_raw import ensemble_name, raw_models
from mlpack.runtimes.triton_repository import TritonRepository
from mlpack.runtimes.triton_server import serve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.model import TensorSpec
    from mlpack.core.runtime import PackageOptions, Repository, Running, Runtime, ServeOptions
    from mlpack.runtimes.package_files import Batching
    from mlpack.runtimes.raw_side import RawSide

# Release 2.71.0; its build.py names ONNX Runtime 1.27.0.
IMAGE_TAG = "26.07-py3"
_IMAGE_ONNXRUNTIME = "1.27.0"
# Triton 24.10's Python backend is READY with empty outputs under numpy 2; the image itself has numpy < 2.
_IMAGE_NUMPY = "1.26.4"
# The server itself, before it loads a model.
_OWN_BYTES = 256 * 2**20
_OPTIONS = frozenset(
    {"max_batch", "queue_delay_ms", "instances", "manifests", "engine_fallback", "timeout_ms", "cache", "cache_mb"}
)
_PRECISION_MODES = {"int8": "INT8", "fp16": "FP16"}
# As the numbers that Triton has for them.
_CACHE_FLAG = "--cache-config=local,size="
_CONVOLUTIONS = {"exhaustive": "0", "heuristic": "1", "default": "2"}


class Triton:
    """Files: model_repository/NAME/{config.pbtxt, VERSION/, warmup/}, golden samples, Dockerfile.

    With a pipeline also the ensemble NAME_raw and its steps NAME_prepare and NAME_finish.
    """

    name = "triton"
    title = "Triton Inference Server"
    ports: Mapping[str, int] = MappingProxyType({"http": 8000, "grpc": 8001})
    repository: Repository | None = TritonRepository()

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, str | bytes | Path]:
        """The package by relative path. Pure: writes nothing.

        Raises:
            UsageError: the artifact is not ONNX, has tensors or options that Triton cannot be told, or was not
                scored on the backend that serves.
        """
        refuse_options(options, _OPTIONS, "Triton has none")
        check_servable(stored)
        artifact = stored.artifact
        check_engine_fallback(artifact, options)
        shared_by = batching(stored, options)
        _check_options(stored, options, shared_by)
        if artifact.model.backend_options.waiting == "sleep":
            raise UsageError(
                f"{artifact.name}@{artifact.version} has threads that sleep while they wait, which Triton's "
                "ONNX Runtime backend cannot be told",
                f"mlpack package {artifact.name}@{artifact.version} --runtime fastapi",
            )
        repository = f"model_repository/{artifact.name}"
        folder = f"{repository}/{artifact.version}"
        warmups = _warmups(stored, shared_by)
        files: dict[str, str | bytes | Path] = {
            f"{folder}/{relative}": path for relative, path in model_files(stored).items()
        }
        pins: dict[str, str] = {}
        if _serving(artifact) == "openvino":
            files[f"{folder}/model.py"] = TEMPLATES / "triton" / "model.py"
            pins = {**pinned(artifact, ["openvino"]), "numpy": _IMAGE_NUMPY}
        raw = raw_side(stored)
        if raw:
            pins = {**pins, "numpy": _IMAGE_NUMPY, **pinned(artifact, raw.libraries)}
            files |= raw_models(stored, raw, options, shared_by, lambda spec: _tensor(artifact, spec, shared_by))
        # What was measured on the card is served as it was measured.
        engine = on_gpu(artifact) and artifact.model.backend_options.device != "cuda"
        if engine:
            most = shared_by.max_rows or options.max_batch
            files |= engine_files(artifact, most, config(stored, options, "tensorrt"))
        if warmups:
            for index, array in enumerate(golden_inputs(stored).values()):
                files[f"{repository}/warmup/{_raw_name(index)}"] = _one_request(array, shared_by).tobytes()
        needed_in_turn = needed_by(pins)
        values = {
            **facts(stored, shared_by),
            "card": _card(artifact),
            "image_tag": IMAGE_TAG,
            "image_note": _image_note(artifact),
            "pins": [f"{library}=={version}" for library, version in {**pins, **needed_in_turn}.items()],
            "pins_note": _pins_note(artifact, raw),
            "curl": has_sample_request(stored) and not _has_half(artifact),
            "no_curl_reason": "Triton takes FP16 as binary" if _has_half(artifact) else "samples are large",
            "ports": [8000, 8001, 8002],
            "shm_size": "1gb" if pins else None,
            "stop_seconds": 30,
            "passed": [],
            "fallback": options.engine_fallback,
            "engine": engine,
            "cache_flag": f', "{_CACHE_FLAG}{options.cache_mb * 10**6}"' if options.cache == "memory" else "",
            "lacks": lacking(artifact),
            "raw": raw,
            "raw_name": ensemble_name(artifact.name),
            "raw_shape": [1] if shared_by.max_rows is None else [1, 1],
        }
        return {
            **files,
            f"{repository}/config.pbtxt": config(stored, options),
            **shared_files(stored, shared_by, raw, ensemble_name(artifact.name)),
            "sbom.cdx.json": bill_of_materials(artifact, {**pins, **needed_in_turn}),
            "Dockerfile": render("triton/Dockerfile.j2", **values),
            "compose.yaml": render("compose.yaml.j2", **values),
            "README.md": render("triton/README.md.j2", **values),
            **manifests(stored, options, shared_by, _pod(artifact, options, shared_memory=bool(pins))),
        }

    def serve(self, folder: Path, options: ServeOptions, log: Path) -> AbstractContextManager[Running]:
        """The `tritonserver` that is here, on the package's model repository."""
        return serve(folder, options, log)


def _check_options(stored: Stored, options: PackageOptions, shared_by: Batching) -> None:
    """Refuse what Triton has in another form, or not for this model.

    Raises:
        UsageError: it says which option, and why.
    """
    check_cache(stored, options, "triton")
    if options.cache == "redis":
        raise UsageError("Triton's image keeps answers in its own memory", "--cache memory")
    if shared_by.mode != "merged" and options.timeout_ms != type(options).model_fields["timeout_ms"].default:
        raise UsageError(
            f"--timeout-ms is of Triton's queue, which this model does not have: {shared_by.reason}",
            "leave it out, or --runtime fastapi",
        )


def config(stored: Stored, options: PackageOptions, serving: str | None = None) -> str:
    """config.pbtxt, with a comment on the origin of each number.

    `serving` is who runs the model. None: as the repository has it; `tensorrt`: an engine in place of the graph.

    Raises:
        UsageError: a tensor has no dims and the model no batch: Triton cannot describe it.
    """
    artifact = stored.artifact
    shared_by = batching(stored, options)
    preferred = sorted({timed.batch for timed in artifact.latency if 1 < timed.batch <= options.max_batch})
    text = render(
        "triton/config.pbtxt.j2",
        **{
            **facts(stored, shared_by),
            "serving": serving or _serving(artifact),
            "filename": PLAN if serving == "tensorrt" else artifact.model.entry,
            "inputs": [_tensor(artifact, spec, shared_by) for spec in artifact.model.inputs],
            "outputs": [_tensor(artifact, spec, shared_by) for spec in artifact.model.outputs],
            "max_batch_comment": _max_batch_comment(shared_by),
            "preferred": preferred or [options.max_batch],
            "preferred_comment": _preferred_comment(artifact, preferred),
            "queue_delay_ms": f"{options.queue_delay_ms:g}",
            "queue_delay_us": round(options.queue_delay_ms * 1000),
            "timeout_ms": f"{options.timeout_ms:g}",
            "timeout_us": round(options.timeout_ms * 1000),
            "queue_capacity": queue_capacity(shared_by, options),
            "cached": options.cache == "memory",
            "instances": options.instances,
            "card": _card(artifact),
            "precision_mode": _PRECISION_MODES.get(artifact.model.numerics, "FP32"),
            "profiles": _profiles(artifact, shared_by),
            "warmups": _warmups(stored, shared_by),
        },
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _pod(artifact: Artifact, options: PackageOptions, *, shared_memory: bool) -> Pod:
    """The image's user triton-server has the number 1000; engines for a GPU are built at the first start."""
    gpu = on_gpu(artifact)
    return Pod(
        ports=(Port(name="http", number=8000), Port(name="grpc", number=8001), Port(name="metrics", number=8002)),
        user=1000,
        shared_memory_mib=1024 if shared_memory else None,
        cache="/var/cache/tensorrt" if gpu else None,
        start_seconds=600 if gpu else 60,
        own_bytes=_OWN_BYTES + (options.cache_mb * 10**6 if options.cache == "memory" else 0),
    )


def _serving(artifact: Artifact) -> str:
    """Who runs what lies in the repository: on a GPU ONNX Runtime, with TensorRT as its provider."""
    return "onnxruntime" if on_gpu(artifact) else artifact.model.backend


def _card(artifact: Artifact) -> dict[str, Any]:
    """What computes on the card, by the names that Triton has for its options."""
    options = artifact.model.backend_options
    chosen = provider(options) or TensorRt()
    told: dict[str, Any] = {
        "measured": options.device == "cuda",
        "tf32": str(int(chosen.tf32)),
        "builder": {},
        "cuda": {},
    }
    if isinstance(chosen, Cuda):
        told["cuda"] = {"cudnn_conv_algo_search": _CONVOLUTIONS[chosen.convolutions]}
        if chosen.memory_mib is not None:
            told["cuda"]["gpu_mem_limit"] = str(chosen.memory_mib * MIB)
        return {**told, "by_tensorrt": False}
    if told["measured"]:
        told["builder"] = {"trt_builder_optimization_level": str(chosen.level)}
    if chosen.workspace_mib is not None:
        told["builder"]["max_workspace_size_bytes"] = str(chosen.workspace_mib * MIB)
    return {**told, "by_tensorrt": True}


def _tensor(artifact: Artifact, spec: TensorSpec, shared_by: Batching) -> dict[str, Any]:
    dims = spec.dims if shared_by.max_rows is None else spec.dims[1:]
    if not dims and shared_by.max_rows is None:
        raise UsageError(
            f"{spec.name!r} has no dims and the model no batch, which Triton cannot describe",
            f"mlpack package {artifact.name}@{artifact.version} --runtime fastapi",
        )
    return {
        "name": spec.name,
        "data_type": f"TYPE_{datatype(spec)}",
        "dims": [dim if isinstance(dim, int) else -1 for dim in dims] or [1],
        "symbols": ", ".join(dim for dim in dims if isinstance(dim, str)),
        "scalar": not dims,
    }


def _max_batch_comment(shared_by: Batching) -> list[str]:
    if shared_by.mode == "merged":
        return [f"--max-batch {shared_by.max_rows}: the largest batch that Triton may form."]
    return [
        f"The largest single request, {shared_by.max_rows} rows: no larger batch was judged or allowed.",
        "Its answers depend on batch mates: dynamic INT8 takes one scale from the whole batch.",
    ]


def _preferred_comment(artifact: Artifact, preferred: list[int]) -> str:
    measured = [
        f"batch {timed.batch}: P50 {timed.optimized.p50:.3g} ms"
        for timed in artifact.latency
        if timed.batch in preferred and timed.optimized
    ]
    if measured:
        return f"The batches that were timed: {', '.join(measured)}."
    return "The largest allowed, as no time of a batch between 2 and that was measured."


def _profiles(artifact: Artifact, shared_by: Batching) -> dict[str, str] | None:
    """TensorRT's optimization profile; None where dims besides the batch are free."""
    inputs = artifact.model.inputs
    if shared_by.max_rows is None or any(isinstance(dim, str) for spec in inputs for dim in spec.dims[1:]):
        return None
    shapes = {
        end: [f"{spec.name}:{'x'.join(map(str, (rows, *spec.dims[1:])))}" for spec in inputs]
        for end, rows in (("min", 1), ("max", shared_by.max_rows))
    }
    return {end: ",".join(each) for end, each in shapes.items()}


def _warmups(stored: Stored, shared_by: Batching) -> list[dict[str, Any]]:
    """Warm-ups of golden inputs: one alone, and the largest batch where requests are merged."""
    inputs = stored.artifact.model.inputs
    if shared_by.max_rows is not None and any(len(spec.dims) == 1 for spec in inputs):
        return []
    tensors = [
        {
            "name": spec.name,
            "data_type": f"TYPE_{datatype(spec)}",
            "dims": list(_one_request(array, shared_by).shape),
            "file": _raw_name(index),
        }
        for index, (spec, array) in enumerate(zip(inputs, golden_inputs(stored).values(), strict=True))
    ]
    sizes = [1] if shared_by.mode == "apart" or shared_by.max_rows == 1 else [1, shared_by.max_rows]
    return [{"name": f"golden batch of {size}", "batch_size": size, "inputs": tensors} for size in sizes]


def _one_request(array: np.ndarray, shared_by: Batching) -> np.ndarray:
    """What one warm-up request holds: without the batch dim where Triton adds it."""
    return np.ascontiguousarray(array if shared_by.max_rows is None else array[0])


def _raw_name(index: int) -> str:
    return f"input-{index}.raw"


def _pins_note(artifact: Artifact, raw: RawSide | None) -> str:
    if _serving(artifact) != "openvino":
        return "What the pipeline runs on, as it was made with"
    return f"OpenVINO as it was scored{', and what the pipeline runs on' if raw else ''}"


def _has_half(artifact: Artifact) -> bool:
    return any(spec.dtype == "float16" for spec in (*artifact.model.inputs, *artifact.model.outputs))


def _image_note(artifact: Artifact) -> str:
    libraries: Mapping[str, str] = artifact.environment.get("libraries", {})
    if on_gpu(artifact) and not _card(artifact)["by_tensorrt"]:
        return "It runs on ONNX Runtime's own CUDA kernels, as it was measured."
    if on_gpu(artifact):
        built = "TensorRT builds its engine on the GPU at the first start (minutes)"
        if _card(artifact)["measured"]:
            return f"{built}, as it did where it was measured."
        return f"{built}; neither its answers nor its speed were measured there, so run the check below."
    if _serving(artifact) == "openvino":
        return "The image installs the same OpenVINO and runs it in Triton's Python backend."
    scored = libraries.get("onnxruntime", "of another version")
    if scored == _IMAGE_ONNXRUNTIME:
        return ""
    return f"It was scored on onnxruntime {scored}, the image has {_IMAGE_ONNXRUNTIME}: run the check below."


RUNTIME: Runtime = Triton()
