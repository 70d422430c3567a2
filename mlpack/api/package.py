"""`mlpack.package`: lays an artifact out for a server."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from mlpack.api.lookup import artifact as find_artifact
from mlpack.core.filesystem import refused_by_machine, remove, sweep, sync, temporary_sibling
from mlpack.core.runtime import PackageOptions
from mlpack.core.summary import Commands, Told
from mlpack.core.words import Frozen
from mlpack.errors import Tampered, UsageError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.artifact import Stored
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
    next: tuple[str, ...]

    def summary(self) -> Iterator[Part]:
        """Where it lies and how to start it."""
        yield f"packaged {self.name}@{self.version} for {self.runtime}: {self.path}"
        yield f"  {len(self.files)} files, {self.size_bytes / 1e6:.1f} MB; how to start it: its README.md"
        yield "next:"
        yield Commands(self.next)


def package(
    ref: str | None = None,
    *,
    runtime: str,
    out: str | Path | None = None,
    max_batch: int = 8,
    queue_delay_ms: float = 2.0,
    instances: int = 1,
    timeout_ms: float = 20_000.0,
    access: Literal["open", "token"] = "open",
    rate_limit: float | None = None,
    cache: Literal["none", "memory", "redis"] = "none",
    cache_mb: int = 64,
    fallback: str | None = None,
    traces: Literal["none", "otlp"] = "none",
    force: bool = False,
    store: str | Path | None = None,
) -> Packaged:
    """Lay an artifact out for a server, in a new folder that is complete or not there at all.

    Args:
        ref: `name`, `name@3`, `name@tag`, `name@sha256:…` or a path; None: the artifact that mlpack.toml
            names, or the only one in the store.
        runtime: `triton` or `fastapi`.
        out: the folder to make; None: `./NAME-VERSION-RUNTIME`. Refused if it is there.
        max_batch: the largest batch that the server may form.
        queue_delay_ms: the longest wait for batch mates, in ms.
        instances: copies of the model that run side by side.
        timeout_ms: the longest time from a request to its answer, in ms; clients may ask for less.
        access: `open`, or `token`: only who sends the token that the server is started with.
        rate_limit: requests per second that one client may make; None: as many as fit.
        cache: keep answers for requests that come again: `none`, `memory` or `redis`.
        cache_mb: the size of the cache in memory.
        fallback: an artifact with the same inputs and outputs that answers where the first one fails.
        traces: `otlp`: send the course of each request to an OpenTelemetry collector.
        force: also package a candidate, whose accuracy is not proven.
        store: the store; None: what the settings say.

    Raises:
        UsageError: an unknown artifact or runtime, a folder that is there, a candidate without `force`, or
            an artifact that this runtime cannot serve as it was judged.
        Tampered: a file of the artifact is not the one that was published; nothing is written.
        MachineError: the disk is full or the place cannot be written.
    """
    second = find_artifact(fallback, store) if fallback is not None else None
    options = _options(
        {
            "max_batch": max_batch,
            "queue_delay_ms": queue_delay_ms,
            "instances": instances,
            "timeout_ms": timeout_ms,
            "access": access,
            "rate_limit": rate_limit,
            "cache": cache,
            "cache_mb": cache_mb,
            "fallback": second,
            "traces": traces,
        }
    )
    server = RUNTIMES[runtime]
    stored = find_artifact(ref, store)
    artifact = stored.artifact
    for each in (stored, *([second] if second else [])):
        if each.artifact.status == "candidate" and not force:
            named = f"{each.artifact.name}@{each.artifact.version}"
            again = f"mlpack package {artifact.name}@{artifact.version} --runtime {runtime}"
            raise UsageError(
                f"{named} is a candidate: its accuracy is {each.artifact.accuracy.verdict}",
                f"{again}{f' --fallback {named}' if each is second else ''} --force",
            )
    place = Path(out or f"{artifact.name}-{artifact.version}-{runtime}").expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place} is there already", f"remove it, or choose another folder: --out {place}-2")
    layout = server.layout(stored, options)
    _make_parent(place)
    sweep(place.parent)
    folder = temporary_sibling(place)
    try:
        with refused_by_machine(place):
            files = {name: _write(folder / name, content, (stored, second)) for name, content in layout.items()}
            record = {
                "schema": SCHEMA,
                "runtime": runtime,
                "name": artifact.name,
                "version": artifact.version,
                "artifact_digest": artifact.digest,
                "files": dict(sorted(files.items())),
            }
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            # A folder that somebody made in the meantime is not replaced: rename refuses a folder with files.
            folder.rename(place)
            sync(place.parent)
    except BaseException:
        remove(folder)
        raise
    return Packaged(
        path=place,
        runtime=runtime,
        name=artifact.name,
        version=artifact.version,
        artifact_digest=artifact.digest,
        files=dict(sorted(files.items())),
        size_bytes=sum((place / relative).stat().st_size for relative in files),
        next=(
            shlex.join(["docker", "compose", "--project-directory", str(place), "up", "--build", "-d"]),
            shlex.join(["python", str(place / "client.py")]),
        ),
    )


def _make_parent(place: Path) -> None:
    try:
        with refused_by_machine(place):
            place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{place} cannot be made: a part of its path is a file", "choose another folder: --out DIR"
        ) from error


def _options(fields: Mapping[str, object]) -> PackageOptions:
    try:
        return PackageOptions.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        told = PackageOptions.model_fields[name].description
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} {first['input']}: {first['msg']}", f"{flag} is the {told}") from error


def _write(path: Path, content: str | bytes | Path, owners: tuple[Stored | None, ...]) -> str:
    """Write one file of the package; its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        return _copy(content, path, owners)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def _copy(source: Path, path: Path, owners: tuple[Stored | None, ...]) -> str:
    """Copy a file, which is the published one where it comes from an artifact; its sha256."""
    owner = next((each for each in owners if each and source.is_relative_to(each.path)), None)
    try:
        shutil.copyfile(source, path)
    except FileNotFoundError as error:
        raise _tampered(source, owner, "is missing") from error
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if owner and owner.artifact.files.get(source.relative_to(owner.path).as_posix()) != digest:
        raise _tampered(source, owner, "is not the file that was published")
    return digest


def _tampered(source: Path, owner: Stored | None, what: str) -> Tampered:
    named = f"{owner.artifact.name}@{owner.artifact.version}" if owner else ""
    return Tampered(
        f"{source} {what}", f"mlpack verify {named}" if owner else "pip install --force-reinstall mlpack-toolchain"
    )
