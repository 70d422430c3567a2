"""Runtime: a server that runs models elsewhere; its package is a pure function of an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from pydantic import Field

from mlpack.core.artifact import Stored
from mlpack.core.words import Frozen

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from contextlib import AbstractContextManager


class PackageOptions(Frozen):
    """What a serving package is tuned by. A runtime refuses those that mean nothing to its server."""

    max_batch: int = Field(default=8, ge=1, description="largest batch that the server may form")
    queue_delay_ms: float = Field(default=2.0, ge=0, allow_inf_nan=False, description="longest wait for batch mates")
    instances: int = Field(default=1, ge=1, description="copies of the model that run side by side")
    timeout_ms: float = Field(
        default=20_000.0, gt=0, allow_inf_nan=False, description="longest time from a request to its answer"
    )
    access: Literal["open", "token"] = Field(default="open", description="who may ask: all, or who has the token")
    rate_limit: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="requests per second of one client; None: as many as fit"
    )
    cache: Literal["none", "memory", "redis"] = Field(
        default="none", description="where answers are kept for requests that come again"
    )
    cache_mb: int = Field(default=64, ge=1, description="size of the cache in memory")
    fallback: Stored | None = Field(default=None, description="the artifact that answers where this one fails")
    traces: Literal["none", "otlp"] = Field(default="none", description="how the course of requests is reported")
    engine_fallback: Literal["none", "onnxruntime"] = Field(
        default="none", description="who serves the graph of an artifact for a card where no engine can be built"
    )
    triton_backend: Literal["usual", "own", "python"] = Field(
        default="usual",
        description="who runs the model in Triton: its own backend for the library, or its Python backend with the "
        "library as it was scored; usual: its own for ONNX Runtime, Python for OpenVINO",
    )
    limit_threads: int | None = Field(
        default=None, ge=1, description="threads that all models of a server may compute with at a time; None: no limit"
    )
    priority: int = Field(
        default=1, ge=1, description="where threads are limited: a model of priority 2 gets half the turns of one of 1"
    )
    manifests: Literal["none", "kubernetes"] = Field(default="none", description="what to add for an orchestrator")


class Repository(Protocol):
    """A folder of models that a running server watches, each with its versions and one configuration for all of them.

    `folder` is where a package has it, `config` the name of a model's configuration in it.
    """

    folder: str
    config: str

    def differences(self, old: str, new: str) -> tuple[str, ...]:
        """What clients would see change if a version under the new configuration were served under the old one.

        Raises:
            MissingLibrary: what reads such a file is not installed.
            UsageError: the old one cannot be read.
        """
        ...

    def kept(self, old: str, new: str) -> tuple[str, ...]:
        """Settings besides that in which the two differ, and the old one stays."""
        ...

    def active(self, config: str) -> tuple[int, ...]:
        """The versions that are served."""
        ...

    def steps(self, config: str) -> tuple[tuple[str, int], ...]:
        """The models that this one asks, each with the version that it asks; -1: whichever is the latest."""
        ...

    def activated(self, config: str, versions: tuple[int, ...]) -> str:
        """The configuration with these versions served, or asked by its steps, and nothing else changed."""
        ...

    def look_again(self, name: str) -> tuple[str, ...]:
        """Commands that make a server which does not watch its folder look at this model again."""
        ...


class ServeOptions(Frozen):
    """What a package's server is started with on this machine."""

    port: int | None = Field(default=None, ge=1, le=65535, description="where HTTP is spoken; None: a free port")
    python: Path | None = Field(default=None, description="interpreter of an environment with what it needs")
    server: Path | None = Field(default=None, description="the server's own program, where it is not Python")


@dataclass(frozen=True)
class Archive:
    """A zip file of a package, not compressed and without times: the same files make the same bytes."""

    files: Mapping[str, str | bytes | Path]


Content: TypeAlias = str | bytes | Path | Archive
"""What a file of a package holds, or the file to copy."""


@dataclass(frozen=True)
class Running:
    """A server that got ready to answer: its addresses by protocol (`http`, `grpc`), all on this machine only.

    `start_s` went by until then. `notes` say in what it is not the server that the package is for.
    """

    urls: Mapping[str, str]
    start_s: float
    log: Path
    process: subprocess.Popen[bytes]
    notes: tuple[str, ...] = ()


class Runtime(Protocol):
    """One file per runtime, its templates, and one line in the table."""

    name: str
    title: str
    ports: Mapping[str, int]
    """Where its image listens, by protocol; empty where it cannot be asked from outside without more."""
    repository: Repository | None

    def layout(self, stored: Stored, options: PackageOptions) -> Mapping[str, Content]:
        """The package: content, or the file to copy, by relative path. Pure: writes nothing.

        Raises:
            UsageError: this runtime cannot serve this artifact, or not with these options; the hint says which can.
        """
        ...

    def serve(self, folder: Path, options: ServeOptions, log: Path) -> AbstractContextManager[Running]:
        """The real server of the package in this folder, ended with all that it started; it writes into `log` only.

        Raises:
            UsageError: an option that this server has no use for, or that names nothing that runs.
            MissingLibrary, MissingHardware: this machine lacks what it needs.
            MachineError: its port is taken.
            StageFailed: it ended before it was ready, or did not get ready; the log's path is told.
        """
        ...
