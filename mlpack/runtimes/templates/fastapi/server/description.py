"""Reads what is served from model.json and makes sure that the files are the ones that were packaged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

# The V2 protocol's names for numpy's dtypes. Strings and bfloat16 have no exact form in plain JSON numbers.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}


class PackageAltered(Exception):
    """A file of the model is missing or is not the one that was packaged."""


@dataclass(frozen=True)
class Tensor:
    """One input or output: a number in `dims` is fixed, a symbol is free and equal wherever it stands."""

    name: str
    datatype: str
    dims: tuple[int | str, ...]

    @property
    def metadata(self) -> dict[str, object]:
        """As the protocol's model metadata has it: -1 for a free dim."""
        shape = [dim if isinstance(dim, int) else -1 for dim in self.dims]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


@dataclass(frozen=True)
class Options:
    """How the backend runs the model: the options that its accuracy and speed were measured with."""

    threads: int
    precision: Literal["float32", "bfloat16"]
    graph_optimizations: Literal["all", "off"]
    waiting: Literal["spin", "sleep"]


@dataclass(frozen=True)
class Limits:
    """Batching, and bounds of requests. `max_rows` is None where the model has no free batch dim."""

    batching: Literal["merged", "apart"]
    max_rows: int | None
    queue_delay_ms: float
    queue_capacity: int
    instances: int
    max_body_bytes: int
    timeout_ms: float = 20_000.0
    rate_per_second: float | None = None


@dataclass(frozen=True)
class RawSide:
    """What a raw sample has before the pipeline (nothing: `fields` is empty), and the columns of answers after it.

    `columns` has the datatype of each by name, and is empty where answers are the model's outputs.
    """

    fields: tuple[str, ...]
    media: Literal["text", "image"]
    columns: dict[str, str]

    @property
    def metadata(self) -> dict[str, object]:
        """The raw side of the model's metadata; images travel in base64."""
        form = {"parameters": {"content_type": "base64"}} if self.media == "image" else {}
        return {
            "raw_inputs": [{"name": name, "datatype": "BYTES", "shape": [-1], **form} for name in self.fields],
            "raw_outputs": [
                {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in self.columns.items()
            ],
        }


@dataclass(frozen=True)
class Kept:
    """Where answers are kept for requests that come again; `size_bytes` is that of the store in memory."""

    store: Literal["memory", "redis"]
    size_bytes: int


@dataclass(frozen=True)
class Description:
    """The content of model.json. `raw` is None where the package has no pipeline.

    `fallback` is another model with the same inputs and outputs: what differs is its name, version, digest, entry and
    how it is run.
    """

    name: str
    version: str
    digest: str
    backend: str
    entry: str
    options: Options
    limits: Limits
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    raw: RawSide | None = None
    access: Literal["open", "token"] = "open"
    cache: Kept | None = None
    traces: Literal["none", "otlp"] = "none"
    fallback: Description | None = None


def read_description(package: Path) -> Description:
    """Read `model.json` of a package folder."""
    content = json.loads((package / "model.json").read_text())
    raw = content.get("raw")
    cache = content.get("cache")
    described = Description(
        name=content["name"],
        version=content["version"],
        digest=content["digest"],
        backend=content["backend"],
        entry=content["entry"],
        options=Options(**content["options"]),
        limits=Limits(**content["limits"]),
        raw=raw and RawSide(tuple(raw["fields"]), raw["media"], raw["columns"]),
        access=content["access"],
        cache=cache and Kept(**cache),
        traces=content["traces"],
        inputs=_tensors(content["inputs"]),
        outputs=_tensors(content["outputs"]),
    )
    spare = content.get("fallback")
    if spare is None:
        return described
    return replace(described, fallback=replace(described, **{**spare, "options": Options(**spare["options"])}))


def _tensors(side: list[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(each["name"], each["datatype"], tuple(each["dims"])) for each in side)


def check_files(package: Path) -> None:
    """Compare the model's and the pipeline's files, their description and the golden files with `mlpack-package.json`.

    Raises:
        PackageAltered: one is missing or has another sha256, or the list itself is damaged.
    """
    try:
        recorded: dict[str, str] = json.loads((package / "mlpack-package.json").read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageAltered(f"mlpack-package.json is missing or damaged: {error!r}") from error
    for relative, digest in recorded.items():
        if relative != "model.json" and not relative.startswith(("model/", "fallback/", "pipeline/", "golden/")):
            continue
        path = package / relative
        if not path.is_file():
            raise PackageAltered(f"{relative} is missing")
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise PackageAltered(f"{relative} was altered: its sha256 is not the packaged one")
