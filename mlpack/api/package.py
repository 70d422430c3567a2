"""`mlpack.package`: lays an artifact out for a server."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlpack.api.lookup import artifact as find_artifact
from mlpack.api.packing import check_packable, copies, options_from, write_file
from mlpack.containers import engine_here
from mlpack.containers.engine import Image
from mlpack.core.filesystem import refused_by_machine, remove, sweep, sync, temporary_sibling, write_atomic
from mlpack.core.summary import Commands, Told
from mlpack.core.words import Frozen
from mlpack.errors import UsageError
from mlpack.runtimes import RUNTIMES
from mlpack.runtimes.package_files import image_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.summary import Part

RECORD = "mlpack-package.json"
SCHEMA = 1


class Packaged(Frozen, Told):
    """A package that was written: where, for what, and what is in it (sha256 by relative path)."""

    path: Path
    runtime: str
    name: str
    version: int
    artifact_digest: str
    files: dict[str, str]
    size_bytes: int
    image: Image | None = None
    next: tuple[str, ...]

    def summary(self) -> Iterator[Part]:
        """Where it lies and how to start it."""
        yield f"packaged {self.name}@{self.version} for {self.runtime}: {self.path}"
        yield f"  {len(self.files)} files, {self.size_bytes / 1e6:.1f} MB; how to start it: its README.md"
        if self.image:
            yield f"  image {self.image.reference}, {self.image.digest}, built by {self.image.engine}"
        yield "next:"
        yield Commands(self.next)


def package(
    ref: str | None = None,
    *,
    runtime: str,
    out: str | Path | None = None,
    max_batch: int = 8,
    queue_delay_ms: float = 2.0,
    instances: int | Literal["fill"] = 1,
    k8s: bool = False,
    build: bool = False,
    timeout_ms: float = 20_000.0,
    access: Literal["open", "token"] = "open",
    rate_limit: float | None = None,
    cache: Literal["none", "memory", "redis"] = "none",
    cache_mb: int = 64,
    fallback: str | None = None,
    traces: Literal["none", "otlp"] = "none",
    engine_fallback: Literal["none", "onnxruntime"] = "none",
    triton_backend: Literal["usual", "own", "python"] = "usual",
    limit_threads: int | None = None,
    priority: int = 1,
    force: bool = False,
    store: str | Path | None = None,
) -> Packaged:
    """Lay an artifact out for a server, in a new folder that is complete or not there at all.

    Args:
        ref: `name`, `name@3`, `name@tag`, `name@sha256:…` or a path; None: the artifact that mlpack.toml
            names, or the only one in the store.
        runtime: `triton`, `fastapi` or `torchserve`.
        out: the folder to make; None: `./NAME-VERSION-RUNTIME`. Refused if it is there.
        max_batch: the largest batch that the server may form.
        queue_delay_ms: the longest wait for batch mates, in ms.
        instances: copies of the model that run side by side; `fill`: as many as fill the CPUs that it was timed on.
        k8s: add plain Kubernetes manifests, in `k8s/`.
        build: build the image too, with docker, podman or buildah, and record its digest in `mlpack-package.json`.
        timeout_ms: the longest time from a request to its answer, in ms; clients may ask for less.
        access: `open`, or `token`: only who sends the token that the server is started with.
        rate_limit: requests per second that one client may make; None: as many as fit.
        cache: keep answers for requests that come again: `none`, `memory` or `redis`.
        cache_mb: the size of the cache in memory.
        fallback: an artifact with the same inputs and outputs that answers where the first one fails.
        traces: `otlp`: send the course of each request to an OpenTelemetry collector.
        engine_fallback: `onnxruntime` serves the graph of an artifact for a card where no engine can be built; `none`:
            nobody does, and the server does not start.
        triton_backend: who runs the model in Triton: `own`, its backend for the library, or `python`, the version of
            the library that it was scored with; `usual`: its own for ONNX Runtime, Python for OpenVINO.
        limit_threads: threads that all models of a Triton may compute with at a time; None: no limit.
        priority: where threads are limited: a model of priority 2 gets half the turns of one of 1.
        force: also package a candidate, whose accuracy is not proven.
        store: the store; None: what the settings say.

    Raises:
        UsageError: an unknown artifact or runtime, a folder that is there, a candidate without `force`, or
            an artifact that this runtime cannot serve as it was judged.
        Tampered: a file of the artifact is not the one that was published; nothing is written.
        MachineError: the disk is full or the place cannot be written.
        MissingLibrary: an image is asked for, and no container engine works here; nothing is written.
        StageFailed: the engine cannot build the image; the package is there.
    """
    server = RUNTIMES[runtime]
    stored = find_artifact(ref, store)
    artifact = stored.artifact
    second = find_artifact(fallback, store) if fallback is not None else None
    options = options_from(
        {
            "max_batch": max_batch,
            "queue_delay_ms": queue_delay_ms,
            "instances": copies(instances, stored),
            "timeout_ms": timeout_ms,
            "access": access,
            "rate_limit": rate_limit,
            "cache": cache,
            "cache_mb": cache_mb,
            "fallback": second,
            "traces": traces,
            "engine_fallback": engine_fallback,
            "triton_backend": triton_backend,
            "limit_threads": limit_threads,
            "priority": priority,
            "manifests": "kubernetes" if k8s else "none",
        },
        runtime,
    )
    again = f"mlpack package {artifact.name}@{artifact.version} --runtime {runtime}"
    check_packable(stored, again, force=force)
    if second:
        named = f"{second.artifact.name}@{second.artifact.version}"
        check_packable(second, f"{again} --fallback {named}", force=force)
    place = Path(out or f"{artifact.name}-{artifact.version}-{runtime}").expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place} is there already", f"remove it, or choose another folder: --out {place}-2")
    engine = engine_here() if build else None
    layout = server.layout(stored, options)
    _make_parent(place)
    sweep(place.parent)
    folder = temporary_sibling(place)
    try:
        with refused_by_machine(place):
            files = {name: write_file(folder / name, content, (stored, second)) for name, content in layout.items()}
            record = {
                "schema": SCHEMA,
                "runtime": runtime,
                "name": artifact.name,
                "version": artifact.version,
                "artifact_digest": artifact.digest,
                "files": dict(sorted(files.items())),
            }
            (folder / RECORD).write_text(_text(record), encoding="utf-8")
            # A folder that somebody made in the meantime is not replaced: rename refuses a folder with files.
            folder.rename(place)
            sync(place.parent)
    except BaseException:
        remove(folder)
        raise
    image = engine.build(place, image_name(artifact)) if engine else None
    if image:
        write_atomic(place / RECORD, _text({**record, "image": image.model_dump(mode="json")}))
    return Packaged(
        path=place,
        runtime=runtime,
        name=artifact.name,
        version=artifact.version,
        artifact_digest=artifact.digest,
        files=dict(sorted(files.items())),
        size_bytes=sum((place / relative).stat().st_size for relative in files),
        image=image,
        next=(
            shlex.join(["mlpack", "check", str(place)]),
            shlex.join(["docker", "compose", "--project-directory", str(place), "up", "--build", "-d"]),
            shlex.join(["python", str(place / "client.py")]),
        ),
    )


def _text(record: dict[str, object]) -> str:
    return json.dumps(record, indent=2) + "\n"


def _make_parent(place: Path) -> None:
    try:
        with refused_by_machine(place):
            place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{place} cannot be made: a part of its path is a file", "choose another folder: --out DIR"
        ) from error
