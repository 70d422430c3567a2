"""The triton runtime: a model repository, its config.pbtxt derived from the model and its measurements."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.runtimes.golden_side import golden_inputs, has_sample_request, shared_files
from mlpack.runtimes.kubernetes import Pod, Port, manifests
from mlpack.runtimes.package_files import (
    TEMPLATES,
    batching,
    check_cache,
    check_engine_fallback,
    check_servable,
    facts,
    model_files,
    on_gpu,
    pinned,
    refuse_options,
    render,
)
from mlpack.runtimes.raw_side import raw_side
from mlpack.runtimes.requirements import bill_of_materials, needed_by
from mlpack.runtimes.triton_config import (
    THREADS,
    card_of,
    config,
    one_request,
    raw_name,
    served_by,
    tensor_of,
    warmups_of,
)
from mlpack.runtimes.triton_engine import engine_files, lacking
from mlpack.runtimes.triton_raw import ensemble_name, raw_models
from mlpack.runtimes.triton_repository import TritonRepository
from mlpack.runtimes.triton_server import serve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.runtime import PackageOptions, Repository, Running, Runtime, ServeOptions
    from mlpack.runtimes.package_files import Batching
    from mlpack.runtimes.raw_side import RawSide
    from mlpack.runtimes.triton_config import Serving

# Release 2.71.0; its build.py names ONNX Runtime 1.27.0.
IMAGE_TAG = "26.07-py3"
_IMAGE_ONNXRUNTIME = "1.27.0"
# Triton 24.10's Python backend is READY with empty outputs under numpy 2; the image itself has numpy < 2.
_IMAGE_NUMPY = "1.26.4"
_TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
# The server itself, before it loads a model.
_OWN_BYTES = 256 * 2**20
_OPTIONS = frozenset(
    {
        "max_batch", "queue_delay_ms", "instances", "manifests", "engine_fallback", "timeout_ms", "cache", "cache_mb",
        "triton_backend", "limit_threads", "priority",
    }
)  # fmt: skip


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
        _check_backend(artifact, options, shared_by)
        repository = f"model_repository/{artifact.name}"
        folder = f"{repository}/{artifact.version}"
        warmups = warmups_of(stored, shared_by)
        files: dict[str, str | bytes | Path] = {
            f"{folder}/{relative}": path for relative, path in model_files(stored).items()
        }
        pins: dict[str, str] = {}
        serving = served_by(artifact, options)
        if serving == "python":
            files[f"{folder}/model.py"] = TEMPLATES / "triton" / "model.py"
            pins = {**pinned(artifact, [artifact.model.backend]), "numpy": _IMAGE_NUMPY}
        raw = raw_side(stored)
        if raw:
            pins = {**pins, "numpy": _IMAGE_NUMPY, **pinned(artifact, raw.libraries)}
            files |= raw_models(stored, raw, options, shared_by, lambda spec: tensor_of(artifact, spec, shared_by))
        # What was measured on the card is served as it was measured.
        engine = on_gpu(artifact) and artifact.model.backend_options.device != "cuda"
        if engine:
            most = shared_by.max_rows or options.max_batch
            files |= engine_files(artifact, most, config(stored, options, "tensorrt"))
        if warmups:
            for index, array in enumerate(golden_inputs(stored).values()):
                files[f"{repository}/warmup/{raw_name(index)}"] = one_request(array, shared_by).tobytes()
        needed_in_turn = needed_by(pins)
        values = {
            **facts(stored, shared_by),
            "card": card_of(artifact),
            "image_tag": IMAGE_TAG,
            "image_note": _image_note(artifact, serving),
            "pins": [f"{library}=={version}" for library, version in {**pins, **needed_in_turn}.items()],
            "pins_note": _pins_note(artifact, raw, serving),
            "curl": has_sample_request(stored) and not _has_half(artifact),
            "no_curl_reason": "Triton takes FP16 as binary" if _has_half(artifact) else "samples are large",
            "ports": [8000, 8001, 8002],
            "shm_size": "1gb" if pins else None,
            "stop_seconds": 30,
            "passed": [],
            "fallback": options.engine_fallback,
            "engine": engine,
            "command": _command(options, engine=engine),
            "lacks": lacking(artifact),
            "raw": raw,
            "raw_name": ensemble_name(artifact.name),
            "raw_shape": [1] if shared_by.max_rows is None else [1, 1],
        }
        return {
            **files,
            f"{repository}/config.pbtxt": config(stored, options),
            **shared_files(stored, shared_by, raw, ensemble_name(artifact.name)),
            "verified.py": TEMPLATES / "triton" / "verified.py",
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


def _check_backend(artifact: Artifact, options: PackageOptions, shared_by: Batching) -> None:
    """Refuse who cannot run the model as it was judged, and a limit on threads that no execution fits in.

    Raises:
        UsageError: it says which option, and why.
    """
    named = f"{artifact.name}@{artifact.version}"
    serving = served_by(artifact, options)
    if on_gpu(artifact) and options.triton_backend == "python":
        raise UsageError(f"{named} is for a card, where Triton's own backend runs it", "leave --triton-backend out")
    if serving == "openvino" and shared_by.mode == "apart" and shared_by.max_rows is not None:
        raise UsageError(
            f"Triton's own OpenVINO backend fills batches up with other rows: {shared_by.reason}", "leave it out"
        )
    if serving == "onnxruntime" and artifact.model.backend_options.waiting == "sleep":
        raise UsageError(
            f"{named} has threads that sleep while they wait, which Triton's ONNX Runtime backend cannot be told",
            f"mlpack package {named} --runtime fastapi, or --runtime triton --triton-backend python",
        )
    threads = artifact.model.backend_options.threads or 1
    if options.limit_threads is None:
        if options.priority != 1:
            raise UsageError("--priority is among models whose threads are limited", "--limit-threads N")
    elif on_gpu(artifact):
        raise UsageError(f"--limit-threads is of CPUs, and {named} is for a card", "leave it out")
    elif options.limit_threads < threads:
        raise UsageError(
            f"--limit-threads {options.limit_threads}: one execution of {named} takes {threads}",
            f"--limit-threads {threads * options.instances}",
        )


def _command(options: PackageOptions, *, engine: bool) -> list[str]:
    """What the image starts: files are compared, on a card an engine is built, then the server takes over."""
    flags = ["--disable-auto-complete-config"]
    if options.cache == "memory":
        flags.append(f"--cache-config=local,size={options.cache_mb * 10**6}")
    if options.limit_threads is not None:
        flags += ["--rate-limit=execution_count", f"--rate-limit-resource={THREADS}:{options.limit_threads}"]
    server = ["python3", "/opt/engine/start.py", "tritonserver"] if engine else ["tritonserver"]
    repository = [] if engine else ["--model-repository=/models"]
    return ["python3", "/opt/mlpack/verified.py", *server, *repository, *flags]


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


def _pins_note(artifact: Artifact, raw: RawSide | None, serving: Serving) -> str:
    if serving != "python":
        return "What the pipeline runs on, as it was made with"
    return f"{_TITLES[artifact.model.backend]} as it was scored{', and what the pipeline runs on' if raw else ''}"


def _has_half(artifact: Artifact) -> bool:
    return any(spec.dtype == "float16" for spec in (*artifact.model.inputs, *artifact.model.outputs))


def _image_note(artifact: Artifact, serving: Serving) -> str:
    if on_gpu(artifact):
        return _card_note(artifact)
    libraries: Mapping[str, str] = artifact.environment.get("libraries", {})
    if serving == "python":
        return f"The image installs the same {_TITLES[artifact.model.backend]} and runs it in Triton's Python backend."
    if serving == "openvino":
        known = libraries.get("openvino", "of another version")
        exact = artifact.model.backend_options.precision == "float32"
        told = ", and its backend cannot be told float32" if exact else ""
        return f"It was scored on openvino {known}, the image has its own{told}: run the check below."
    scored = libraries.get("onnxruntime", "of another version")
    if scored == _IMAGE_ONNXRUNTIME:
        return ""
    return f"It was scored on onnxruntime {scored}, the image has {_IMAGE_ONNXRUNTIME}: run the check below."


def _card_note(artifact: Artifact) -> str:
    card = card_of(artifact)
    if not card["by_tensorrt"]:
        return "It runs on ONNX Runtime's own CUDA kernels, as it was measured."
    built = "TensorRT builds its engine on the GPU at the first start (minutes)"
    if card["measured"]:
        return f"{built}, as it did where it was measured."
    return f"{built}; neither its answers nor its speed were measured there, so run the check below."


RUNTIME: Runtime = Triton()
