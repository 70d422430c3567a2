"""The fastapi runtime: a small server on ONNX Runtime or OpenVINO that speaks the V2 protocol over HTTP."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.runtimes.fastapi_options import check_options, described, fallback_files, how_it_runs, pins, variables
from mlpack.runtimes.fastapi_server import serve
from mlpack.runtimes.golden_side import has_sample_request, rows_per_request, shared_files
from mlpack.runtimes.kubernetes import Pod, Port, manifests
from mlpack.runtimes.package_files import (
    TEMPLATES,
    batching,
    check_engine_fallback,
    check_servable,
    datatype,
    facts,
    json_text,
    model_files,
    on_gpu,
    queue_capacity,
    render,
)
from mlpack.runtimes.raw_side import pipeline_files, raw_side
from mlpack.runtimes.requirements import bill_of_materials, needed_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.core.model import TensorSpec
    from mlpack.core.runtime import PackageOptions, Repository, Running, Runtime, ServeOptions
    from mlpack.runtimes.package_files import Batching
    from mlpack.runtimes.raw_side import RawSide

# Characters of the longest JSON number of each kind, and of what separates it from the next one.
_CHARACTERS = {"bool": 7, "float": 26, "int8": 6, "int16": 8, "int32": 13, "int64": 22}
_LIBRARIES = ("numpy", "fastapi", "httptools", "prometheus_client", "uvicorn", "uvloop")
_FREE_DIM = 512
# Beyond the time that an answer may take: a container that is stopped still gives those that it owes.
_STOP_SECONDS = 10
_ENVELOPE_BYTES = 64 * 1024
_MOST_BODY_BYTES = 256 * 1024 * 1024
# One raw sample's field: a long text as JSON escapes it, a large photograph in base64; and of one request's all.
_RAW_BYTES = {"text": 256 * 1024, "image": 24 * 1024 * 1024}
_MOST_RAW_BYTES = 64 * 1024 * 1024
_USER = 10001


class FastApi:
    """Files: the server's own modules (they import nothing of mlpack), model, golden samples, Dockerfile."""

    name = "fastapi"
    title = "FastAPI server"
    ports: Mapping[str, int] = MappingProxyType({"http": 8000})
    repository: Repository | None = None

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, str | bytes | Path]:
        """The package by relative path. Pure: writes nothing.

        Raises:
            UsageError: the artifact is for a GPU, is not ONNX, was not scored on the backend that serves, or does not
                go with these options.
            MissingLibrary: the version of a library to pin is neither recorded nor installed.
        """
        check_servable(stored)
        artifact = stored.artifact
        if on_gpu(artifact):
            raise UsageError(
                f"the fastapi server runs on the CPU; {artifact.name}@{artifact.version} is for "
                f"{artifact.target.get('name')}",
                f"mlpack package {artifact.name}@{artifact.version} --runtime triton",
            )
        check_engine_fallback(artifact, options)
        shared_by = batching(stored, options)
        raw = raw_side(stored)
        limit = body_limit(stored, shared_by, raw)
        backend = artifact.model.backend
        wanted = variables(options)
        check_options(stored, options)
        libraries = (backend, *_LIBRARIES, *(raw.libraries if raw else ()))
        versions = pins(stored, options, libraries)
        needed = needed_by(versions)
        stop_seconds = math.ceil(options.timeout_ms / 1000) + _STOP_SECONDS
        values = {
            **facts(stored, shared_by),
            "pins": versions,
            "needed": needed,
            "backend_version": versions[backend],
            "max_body_bytes": limit,
            "curl": has_sample_request(stored),
            "no_curl_reason": "one sample is too large to paste",
            "ports": [8000],
            "shm_size": None,
            "passed": [each.name for each in wanted],
            "variables": wanted,
            "limits": options,
            "fallback": options.fallback and f"{options.fallback.artifact.name}@{options.fallback.artifact.version}",
            "stop_seconds": stop_seconds,
            "raw": raw,
        }
        server = TEMPLATES / "fastapi" / "server"
        return {
            **{f"model/{relative}": path for relative, path in model_files(stored).items()},
            **fallback_files(options),
            **{f"server/{path.name}": path for path in sorted(server.glob("*.py"))},
            **(pipeline_files(stored, "server/pipeline", "pipeline") if raw else {}),
            **shared_files(stored, shared_by, raw),
            "model.json": description(stored, options, shared_by, limit, raw),
            "requirements.txt": render("fastapi/requirements.txt.j2", **values),
            "sbom.cdx.json": bill_of_materials(artifact, {**versions, **needed}),
            "Dockerfile": render("fastapi/Dockerfile.j2", **values),
            "compose.yaml": render("compose.yaml.j2", **values),
            "README.md": render("fastapi/README.md.j2", **values),
            **manifests(
                stored,
                options,
                shared_by,
                Pod(
                    ports=(Port(name="http", number=self.ports["http"]),),
                    user=_USER,
                    stop_seconds=stop_seconds,
                    variables=tuple(each.name for each in wanted),
                    own_bytes=_own_bytes(options),
                ),
            ),
        }

    def serve(self, folder: Path, options: ServeOptions, log: Path) -> AbstractContextManager[Running]:
        """The package's own server, by the Python that runs mlpack or by `options.python`."""
        return serve(folder, options, log)


def _own_bytes(options: PackageOptions) -> int:
    """Of the cache in memory, and of the fallback's model, once as read and once as laid out."""
    cache = options.cache_mb * 10**6 if options.cache == "memory" else 0
    return cache + (2 * options.fallback.artifact.model.size_bytes if options.fallback else 0)


def description(stored: Stored, options: PackageOptions, shared_by: Batching, limit: int, raw: RawSide | None) -> str:
    """model.json: what the server is told of the model and of how to serve it."""
    artifact = stored.artifact
    record = artifact.model
    return json_text(
        {
            "name": artifact.name,
            "version": str(artifact.version),
            "digest": artifact.digest,
            **how_it_runs(artifact, "model"),
            "limits": {
                "batching": shared_by.mode,
                "max_rows": shared_by.max_rows,
                "queue_delay_ms": options.queue_delay_ms,
                "queue_capacity": queue_capacity(shared_by, options),
                "instances": options.instances,
                "max_body_bytes": limit,
                "timeout_ms": options.timeout_ms,
                "rate_per_second": options.rate_limit,
            },
            **described(options),
            "inputs": [_tensor(spec) for spec in record.inputs],
            "outputs": [_tensor(spec) for spec in record.outputs],
            **({"raw": {"fields": raw.fields, "media": raw.media, "columns": raw.columns}} if raw else {}),
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": datatype(spec), "dims": list(spec.dims)}


def body_limit(stored: Stored, shared_by: Batching, raw: RawSide | None) -> int:
    """Bytes of the largest request that fits: all inputs at the largest batch, free dims taken as 512."""
    total = _ENVELOPE_BYTES
    samples = shared_by.max_rows or rows_per_request(stored) or 1
    largest_raw = total + min(samples * len(raw.fields) * _RAW_BYTES[raw.media], _MOST_RAW_BYTES) if raw else 0
    total += largest_json(stored.artifact.model.inputs, shared_by.max_rows)
    return min(max(total, largest_raw), _MOST_BODY_BYTES)


def largest_json(specs: Iterable[TensorSpec], rows: int | None) -> int:
    """Characters of these tensors' numbers at the largest batch, free dims taken as 512."""
    total = 0
    for spec in specs:
        dims = spec.dims if rows is None else (rows, *spec.dims[1:])
        kind = "float" if spec.dtype.startswith("float") else spec.dtype.removeprefix("u")
        total += math.prod(_FREE_DIM if isinstance(dim, str) else dim for dim in dims) * _CHARACTERS[kind]
    return total


RUNTIME: Runtime = FastApi()
