"""The golden side of every package: samples and their tolerances, one as a request, the client that replays them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlpack.errors import UsageError
from mlpack.runtimes.package_files import TEMPLATES, datatype, json_text
from mlpack.runtimes.raw_side import golden_files, golden_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.runtimes.package_files import Batching
    from mlpack.runtimes.raw_side import RawSide

_MOST_SAMPLE_NUMBERS = 1_000_000


def rows_per_request(stored: Stored) -> int | None:
    """Rows of one golden request: 1 where the batch is free, the static batch, None without batch dim."""
    dims = {spec.dims[0] if spec.dims else None for spec in stored.artifact.model.inputs}
    first = next(iter(dims))
    if len(dims) > 1 or first is None:
        return None
    return first if isinstance(first, int) else 1


def golden_inputs(stored: Stored) -> dict[str, np.ndarray]:
    """The inputs of the first golden request, by name."""
    rows = rows_per_request(stored)
    with np.load(stored.path / "golden" / "inputs.npz") as arrays:
        return {spec.name: arrays[spec.name][:rows] for spec in stored.artifact.model.inputs}


def shared_files(
    stored: Stored,
    shared_by: Batching,
    raw: RawSide | None = None,
    raw_name: str | None = None,
    door: Literal["v2", "versionless"] = "v2",
) -> dict[str, str | bytes | Path]:
    """Golden samples, their tolerances, the first one as a request, and the client that replays them.

    `raw_name` is the name under which the server takes raw samples, where it is not the model's. A server behind a
    `versionless` door takes requests of the protocol and nothing else of it: no metadata, no versions.

    Raises:
        UsageError: the artifact has no measured tolerance for one of its outputs.
    """
    artifact = stored.artifact
    tolerance: Mapping[str, Any] = artifact.golden.get("tolerance", {})
    for spec in artifact.model.outputs:
        if spec.name not in tolerance:
            raise UsageError(
                f"{artifact.name}@{artifact.version} has no golden tolerance for output {spec.name!r}",
                f"mlpack optimize {artifact.source.path} --name {artifact.name}",
            )
    golden: dict[str, Any] = {
        "schema": 1,
        "model": artifact.name,
        "version": str(artifact.version) if door == "v2" else None,
        "rows_per_request": rows_per_request(stored),
        # Where batch mates change nothing, larger requests have to give the same answers.
        "most_rows": shared_by.max_rows if shared_by.mode == "merged" else rows_per_request(stored),
        "tolerance": {spec.name: tolerance[spec.name] for spec in artifact.model.outputs},
    }
    if raw is not None and raw.samples:
        golden["raw"] = golden_record(stored, raw, raw_name or artifact.name)
    files: dict[str, str | bytes | Path] = {
        **golden_files(stored, raw),
        "golden/inputs.npz": stored.path / "golden" / "inputs.npz",
        "golden/outputs.npz": stored.path / "golden" / "outputs.npz",
        "golden/golden.json": json_text(golden),
        "client.py": TEMPLATES / "client.py",
        ".dockerignore": (TEMPLATES / "dockerignore").read_text(),
    }
    if has_sample_request(stored):
        files["golden/request.json"] = json.dumps({"inputs": _sample_tensors(stored)}) + "\n"
    return files


def has_sample_request(stored: Stored) -> bool:
    """Whether the first golden request is small enough to be spelled out in JSON."""
    return sum(array.size for array in golden_inputs(stored).values()) <= _MOST_SAMPLE_NUMBERS


def _sample_tensors(stored: Stored) -> list[dict[str, Any]]:
    arrays = golden_inputs(stored)
    return [
        {
            "name": spec.name,
            "shape": list(arrays[spec.name].shape),
            "datatype": datatype(spec),
            "data": arrays[spec.name].ravel().tolist(),
        }
        for spec in stored.artifact.model.inputs
    ]
