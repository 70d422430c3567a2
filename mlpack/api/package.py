"""`mlpack.package`: lays an artifact out for a server."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.lookup import artifact as find_artifact
from mlpack.core.filesystem import refused_by_machine, remove, sweep, sync, temporary_sibling
from mlpack.core.runtime import PackageOptions
from mlpack.core.summary import Commands, Told
from mlpack.core.words import Frozen
from mlpack.errors import Tampered, UsageError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    fallback: str | None = None,
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
        fallback: `onnxruntime` serves the graph of an artifact for a card where no engine can be built; None: nobody
            does, and the server does not start.
        force: also package a candidate, whose accuracy is not proven.
        store: the store; None: what the settings say.

    Raises:
        UsageError: an unknown artifact or runtime, a folder that is there, a candidate without `force`, or
            an artifact that this runtime cannot serve as it was judged.
        Tampered: a file of the artifact is not the one that was published; nothing is written.
        MachineError: the disk is full or the place cannot be written.
    """
    options = _options(max_batch, queue_delay_ms, instances, fallback)
    server = RUNTIMES[runtime]
    stored = find_artifact(ref, store)
    artifact = stored.artifact
    if artifact.status == "candidate" and not force:
        raise UsageError(
            f"{artifact.name}@{artifact.version} is a candidate: its accuracy is {artifact.accuracy.verdict}",
            f"mlpack package {artifact.name}@{artifact.version} --runtime {runtime} --force",
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
            files = {name: _write(folder / name, content, stored) for name, content in layout.items()}
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


def _options(max_batch: int, queue_delay_ms: float, instances: int, fallback: str | None) -> PackageOptions:
    for flag, value, least in (
        ("--max-batch", max_batch, 1), ("--queue-delay-ms", queue_delay_ms, 0), ("--instances", instances, 1),
    ):  # fmt: skip
        # Not `<`: NaN compares false with everything.
        if not least <= value < float("inf"):
            raise UsageError(f"{flag} {value} is below {least} or no number", f"{flag} {max(least, 1)}")
    return PackageOptions(max_batch=max_batch, queue_delay_ms=queue_delay_ms, instances=instances, fallback=fallback)


def _write(path: Path, content: str | bytes | Path, stored: Stored) -> str:
    """Write one file of the package; its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        return _copy(content, path, stored)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def _copy(source: Path, path: Path, stored: Stored) -> str:
    try:
        shutil.copyfile(source, path)
    except FileNotFoundError as error:
        raise _tampered(source, stored, "is missing") from error
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if source.is_relative_to(stored.path):
        published = stored.artifact.files.get(source.relative_to(stored.path).as_posix())
        if published != digest:
            raise _tampered(source, stored, "is not the file that was published")
    return digest


def _tampered(source: Path, stored: Stored, what: str) -> Tampered:
    return Tampered(f"{source} {what}", f"mlpack verify {stored.artifact.name}@{stored.artifact.version}")
