"""The fastapi runtime: a small server on ONNX Runtime or OpenVINO that speaks the V2 protocol in JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.runtimes.package_files import (
    TEMPLATES,
    batching,
    check_servable,
    datatype,
    facts,
    has_sample_request,
    json_text,
    model_files,
    on_gpu,
    pinned,
    render,
    rows_per_request,
    shared_files,
)
from mlpack.runtimes.raw_side import pipeline_files, raw_side

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.core.model import TensorSpec
    from mlpack.core.runtime import PackageOptions, Runtime
    from mlpack.runtimes.package_files import Batching
    from mlpack.runtimes.raw_side import RawSide

# Characters of the longest JSON number of each kind, and of what separates it from the next one.
_CHARACTERS = {"bool": 7, "float": 26, "int8": 6, "int16": 8, "int32": 13, "int64": 22}
_FREE_DIM = 512
_ENVELOPE_BYTES = 64 * 1024
_MOST_BODY_BYTES = 256 * 1024 * 1024
# One raw sample's field: a long text as JSON escapes it, a large photograph in base64; and of one request's all.
_RAW_BYTES = {"text": 256 * 1024, "image": 24 * 1024 * 1024}
_MOST_RAW_BYTES = 64 * 1024 * 1024


class FastApi:
    """Files: the server's own modules (they import nothing of mlpack), model, golden samples, Dockerfile."""

    name = "fastapi"
    title = "FastAPI server"

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, str | bytes | Path]:
        """The package by relative path. Pure: writes nothing.

        Raises:
            UsageError: the artifact is for a GPU, is not ONNX, or was not scored on the backend that serves.
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
        shared_by = batching(stored, options)
        raw = raw_side(stored)
        limit = _body_limit(stored, shared_by, raw)
        backend = artifact.model.backend
        needed = (backend, "numpy", "fastapi", "prometheus_client", "uvicorn", *(raw.libraries if raw else ()))
        pins = pinned(artifact, needed)
        values = {
            **facts(stored, shared_by),
            "pins": pins,
            "backend_version": pins[backend],
            "max_body_bytes": limit,
            "curl": has_sample_request(stored),
            "no_curl_reason": "one sample is too large to paste",
            "ports": [8000],
            "shm_size": None,
            "raw": raw,
        }
        server = TEMPLATES / "fastapi" / "server"
        return {
            **{f"model/{relative}": path for relative, path in model_files(stored).items()},
            **{f"server/{path.name}": path for path in sorted(server.glob("*.py"))},
            **(pipeline_files(stored, "server/pipeline", "pipeline") if raw else {}),
            **shared_files(stored, raw),
            "model.json": _description(stored, options, shared_by, limit, raw),
            "requirements.txt": render("fastapi/requirements.txt.j2", **values),
            "Dockerfile": render("fastapi/Dockerfile.j2", **values),
            "compose.yaml": render("compose.yaml.j2", **values),
            "README.md": render("fastapi/README.md.j2", **values),
        }


def _description(stored: Stored, options: PackageOptions, shared_by: Batching, limit: int, raw: RawSide | None) -> str:
    artifact = stored.artifact
    record = artifact.model
    return json_text(
        {
            "name": artifact.name,
            "version": str(artifact.version),
            "digest": artifact.digest,
            "backend": record.backend,
            "entry": f"model/{record.entry}",
            "options": {
                "threads": record.backend_options.threads or 1,
                "precision": record.backend_options.precision,
                "graph_optimizations": record.backend_options.graph_optimizations,
                "waiting": record.backend_options.waiting,
            },
            "limits": {
                "batching": shared_by.mode,
                "max_rows": shared_by.max_rows,
                "queue_delay_ms": options.queue_delay_ms,
                # Enough for a burst of full batches, few enough that nobody is answered too late.
                "queue_capacity": max(64, 8 * (shared_by.max_rows or 1) * options.instances),
                "instances": options.instances,
                "max_body_bytes": limit,
            },
            "inputs": [_tensor(spec) for spec in record.inputs],
            "outputs": [_tensor(spec) for spec in record.outputs],
            **({"raw": {"fields": raw.fields, "media": raw.media, "columns": raw.columns}} if raw else {}),
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": datatype(spec), "dims": list(spec.dims)}


def _body_limit(stored: Stored, shared_by: Batching, raw: RawSide | None) -> int:
    """Bytes of the largest request that fits: all inputs at the largest batch, free dims taken as 512."""
    total = _ENVELOPE_BYTES
    samples = shared_by.max_rows or rows_per_request(stored) or 1
    largest_raw = total + min(samples * len(raw.fields) * _RAW_BYTES[raw.media], _MOST_RAW_BYTES) if raw else 0
    for spec in stored.artifact.model.inputs:
        dims = spec.dims if shared_by.max_rows is None else (shared_by.max_rows, *spec.dims[1:])
        kind = "float" if spec.dtype.startswith("float") else spec.dtype.removeprefix("u")
        total += math.prod(_FREE_DIM if isinstance(dim, str) else dim for dim in dims) * _CHARACTERS[kind]
    return min(max(total, largest_raw), _MOST_BODY_BYTES)


RUNTIME: Runtime = FastApi()
