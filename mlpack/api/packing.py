"""What every package is made by: its options, the artifact's leave to be served, and files that are checked."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal
from zipfile import ZipFile, ZipInfo

from pydantic import ValidationError

from mlpack.core.filesystem import link_or_copy
from mlpack.core.runtime import Archive, PackageOptions
from mlpack.errors import Tampered, UsageError
from mlpack.runtimes.package_files import filling, on_gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import Content

# Smaller ones are copied: nothing is saved, and who edits a package by hand edits these.
_LARGE_BYTES = 2**20
_WRITABLE = 0o222
_OF_TRITON = ("triton_backend", "limit_threads", "priority")


def options_from(fields: Mapping[str, object], runtime: str) -> PackageOptions:
    """The options that were asked for.

    Raises:
        UsageError: a value that this option cannot have, or an option of another server.
    """
    for name in _OF_TRITON if runtime != "triton" else ():
        default = PackageOptions.model_fields[name].default
        if fields.get(name, default) != default:
            raise UsageError(f"--{name.replace('_', '-')} is an option of Triton", "leave it out, or --runtime triton")
    try:
        return PackageOptions.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        told = PackageOptions.model_fields[name].description
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} {first['input']}: {first['msg']}", f"{flag} is the {told}") from error


def copies(instances: int | Literal["fill"], stored: Stored) -> int:
    """How many copies of the model are asked for; `fill`: as many as fill the CPUs that it was timed on.

    Raises:
        UsageError: it was not timed, or on a card, or nobody knows on how many CPUs.
    """
    if instances != "fill":
        return instances
    artifact = stored.artifact
    named = f"{artifact.name}@{artifact.version}"
    if on_gpu(artifact):
        raise UsageError(f"how copies of {named} share a card was not measured", "--instances N")
    filled = filling(artifact)
    if filled is None:
        raise UsageError(f"{named} was not timed, or does not say on how many CPUs", "--instances N")
    return filled


def check_packable(stored: Stored, again: str, *, force: bool) -> None:
    """Whether its accuracy is proven, or it is forced; `again` is the command that `--force` has to be added to.

    Raises:
        UsageError: it is a candidate.
    """
    artifact = stored.artifact
    if artifact.status == "candidate" and not force:
        named = f"{artifact.name}@{artifact.version}"
        raise UsageError(f"{named} is a candidate: its accuracy is {artifact.accuracy.verdict}", f"{again} --force")


def write_file(path: Path, content: Content, owners: tuple[Stored | None, ...]) -> str:
    """Write one file of a package; its sha256. Files of `owners` have to be those that were published.

    Raises:
        Tampered: one is not, or is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Archive):
        return _zipped(content, path, owners)
    if isinstance(content, Path):
        return _copy(content, path, owners)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def _zipped(archive: Archive, path: Path, owners: tuple[Stored | None, ...]) -> str:
    """Write an archive, whose files are checked like any; its sha256."""
    with TemporaryDirectory(dir=path.parent, prefix=".archive-") as folder, ZipFile(path, "w") as zipped:
        for name, content in archive.files.items():
            part = Path(folder) / "part"
            write_file(part, content, owners)
            with part.open("rb") as stream, zipped.open(ZipInfo(name), "w", force_zip64=True) as member:
                shutil.copyfileobj(stream, member)
            part.unlink()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, path: Path, owners: tuple[Stored | None, ...]) -> str:
    """Copy or link a file, which is the published one where it comes from an artifact; its sha256."""
    owner = next((each for each in owners if each and source.is_relative_to(each.path)), None)
    try:
        if owner and _may_be_shared(source):
            link_or_copy(source, path)
        else:
            shutil.copyfile(source, path)
    except FileNotFoundError as error:
        raise _tampered(source, owner, "is missing") from error
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if owner and owner.artifact.files.get(source.relative_to(owner.path).as_posix()) != digest:
        raise _tampered(source, owner, "is not the file that was published")
    return digest


def _may_be_shared(source: Path) -> bool:
    """Whether a file of the store may be the package's too, under a second name: large, and kept from being written.

    Its mode keeps it from everyone but root. Who is root gets a copy: what root writes into a package would be in the
    artifact, and nobody would know until it is verified.
    """
    told = source.stat()
    return told.st_size >= _LARGE_BYTES and not told.st_mode & _WRITABLE and os.geteuid() != 0


def _tampered(source: Path, owner: Stored | None, what: str) -> Tampered:
    named = f"{owner.artifact.name}@{owner.artifact.version}" if owner else ""
    return Tampered(
        f"{source} {what}", f"mlpack verify {named}" if owner else "pip install --force-reinstall mlpack-toolchain"
    )
