"""The torchserve runtime: a model archive whose handler answers V2 requests, by whichever backend was scored."""

from __future__ import annotations

import hashlib
import json
import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlpack.core.runtime import Archive
from mlpack.errors import UsageError
from mlpack.runtimes.fastapi import body_limit, description, largest_json
from mlpack.runtimes.golden_side import has_sample_request, shared_files
from mlpack.runtimes.kubernetes import Pod, Port, manifests
from mlpack.runtimes.package_files import (
    TEMPLATES,
    batching,
    check_engine_fallback,
    check_servable,
    facts,
    json_text,
    model_files,
    on_gpu,
    pinned,
    refuse_options,
    render,
)
from mlpack.runtimes.raw_side import pipeline_files, raw_side
from mlpack.runtimes.requirements import bill_of_materials, needed_by
from mlpack.runtimes.torchserve_server import serve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.runtime import Content, PackageOptions, Repository, Running, Runtime, ServeOptions
    from mlpack.runtimes.package_files import Batching

# The last release. It imports torch itself, and reads versions with what setuptools brings.
_VERSIONS = {"torchserve": "0.12.0"}
_LIBRARIES = ("numpy", "torch", "psutil", "pyyaml", "packaging", "setuptools")
_OPTIONS = frozenset({"max_batch", "queue_delay_ms", "instances", "timeout_ms", "manifests"})
# Of the fastapi server: what reads and writes the protocol and runs the model.
_SHARED = (
    "__init__", "answers", "binary", "description", "faults", "media", "protocol", "raw_requests", "sessions",
    "tensors",
)  # fmt: skip
# Its own: the handler, and what that is made of.
_WORKER = ("worker", "samples", "script", "working")
# Formats that its workers run, with who runs them, and the distribution of each.
_RUNS = {"onnx": ("onnxruntime", "openvino"), "torchscript": ("torchscript",)}
_DISTRIBUTIONS = {"torchscript": "torch"}
_USER = 10001
# graceful.py waits 25 s for what is in flight, and ends the server then.
_STOP_SECONDS = 30
_USUAL_ANSWER_BYTES = 6_553_500
# TorchServe's Java process, before it has a worker.
_OWN_BYTES = 512 * 2**20


class TorchServe:
    """Files: model_store/NAME.mar (handler, model, its description), config.properties, golden samples, Dockerfile."""

    name = "torchserve"
    title = "TorchServe"
    ports: Mapping[str, int] = MappingProxyType({})
    repository: Repository | None = None

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, Content]:
        """The package by relative path. Pure: writes nothing.

        Raises:
            UsageError: the artifact is for a GPU, is neither ONNX nor TorchScript, was not scored on the backend that
                serves, or does not go with these options.
            MissingLibrary: the version of a library to pin is neither recorded nor installed.
        """
        refuse_options(options, _OPTIONS, "TorchServe has its own tokens, and no such option")
        check_servable(stored, _RUNS)
        artifact = stored.artifact
        check_engine_fallback(artifact, options)
        if on_gpu(artifact):
            raise UsageError(
                f"a TorchServe package runs on the CPU; {artifact.name}@{artifact.version} is for "
                f"{artifact.target.get('name')}",
                f"mlpack package {artifact.name}@{artifact.version} --runtime triton",
            )
        shared_by = batching(stored, options)
        raw = raw_side(stored)
        limit = body_limit(stored, shared_by, raw)
        backend = _DISTRIBUTIONS.get(artifact.model.backend, artifact.model.backend)
        libraries = dict.fromkeys((backend, *_LIBRARIES, *(raw.libraries if raw else ())))
        pins = {**pinned(artifact, libraries), **_VERSIONS}
        needed = needed_by(pins)
        described = description(stored, options, shared_by, limit, raw)
        values = {
            **facts(stored, shared_by),
            "pins": pins,
            "needed": needed,
            "backend_version": pins[backend],
            "archive": f"{artifact.name}.mar",
            "max_body_bytes": limit,
            "max_answer_bytes": _answer_limit(stored, shared_by),
            "queue_capacity": json.loads(described)["limits"]["queue_capacity"],
            "curl": has_sample_request(stored),
            "raw": raw,
            "ports": [8080],
            "shm_size": None,
            "passed": [],
            "stop_seconds": _STOP_SECONDS,
        }
        pod = Pod(
            ports=(Port(name="http", number=8080), Port(name="metrics", number=8082)),
            user=_USER,
            command=("python", "/app/ready.py", artifact.name),
            start_seconds=120,
            stop_seconds=_STOP_SECONDS,
            own_bytes=_OWN_BYTES,
        )
        return {
            f"model_store/{artifact.name}.mar": _archive(stored, options, described, merged=shared_by.mode == "merged"),
            **{f"{name}.py": TEMPLATES / "torchserve" / f"{name}.py" for name in ("graceful", "ready")},
            **shared_files(stored, shared_by, raw, door="versionless"),
            **{
                name: render(f"torchserve/{name}.j2", **values)
                for name in ("Dockerfile", "README.md", "config.properties")
            },
            "requirements.txt": render("fastapi/requirements.txt.j2", **values),
            "sbom.cdx.json": bill_of_materials(artifact, {**pins, **needed}),
            "compose.yaml": render("compose.yaml.j2", **values),
            **manifests(stored, options, shared_by, pod),
        }

    def serve(self, folder: Path, options: ServeOptions, log: Path) -> AbstractContextManager[Running]:
        """The `torchserve` of `options.python`'s environment, on the package's model store."""
        return serve(folder, options, log)


def _archive(stored: Stored, options: PackageOptions, described: str, *, merged: bool) -> Archive:
    """The model archive: https://github.com/pytorch/serve/blob/master/model-archiver/README.md."""
    artifact = stored.artifact
    own = {f"model/{relative}": path for relative, path in model_files(stored).items()}
    code = {}
    if raw_side(stored):
        pipeline = pipeline_files(stored, "v2/pipeline", "pipeline")
        code = {name: path for name, path in pipeline.items() if name.startswith("v2/")}
        own |= {name: path for name, path in pipeline.items() if name not in code}
    server = TEMPLATES / "fastapi" / "server"
    sums = {
        "model.json": hashlib.sha256(described.encode()).hexdigest(),
        **{name: artifact.files[path.relative_to(stored.path).as_posix()] for name, path in own.items()},
    }
    return Archive(
        {
            "MAR-INF/MANIFEST.json": _manifest(artifact),
            "model-config.yaml": _workers(options, merged=merged),
            **{f"{name}.py": TEMPLATES / "torchserve" / f"{name}.py" for name in _WORKER},
            **{f"v2/{name}.py": server / f"{name}.py" for name in _SHARED},
            **code,
            "model.json": described,
            "mlpack-package.json": json_text({"files": sums}),
            **own,
        }
    )


def _answer_limit(stored: Stored, shared_by: Batching) -> int:
    """Bytes of the largest answer: TorchServe counts those of a whole batch, and its worker dies of more."""
    requests = shared_by.max_rows if shared_by.mode == "merged" else 1
    return max(_USUAL_ANSWER_BYTES, largest_json(stored.artifact.model.outputs, shared_by.max_rows) * (requests or 1))


def _manifest(artifact: Artifact) -> str:
    return json_text(
        {
            "createdOn": artifact.created,
            "runtime": "python",
            "archiverVersion": _VERSIONS["torchserve"],
            "model": {
                "modelName": artifact.name,
                "modelVersion": str(artifact.version),
                "handler": "worker.py",
                "configFile": "model-config.yaml",
            },
        }
    )


def _workers(options: PackageOptions, *, merged: bool) -> str:
    """TorchServe counts requests, not rows, and waits for them in whole milliseconds."""
    settings = {
        "minWorkers": options.instances,
        "maxWorkers": options.instances,
        "batchSize": options.max_batch if merged else 1,
        "maxBatchDelay": math.ceil(options.queue_delay_ms) if merged else 0,
        "responseTimeout": math.ceil(options.timeout_ms / 1000),
        "deviceType": "cpu",
    }
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


RUNTIME: Runtime = TorchServe()
