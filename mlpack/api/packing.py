"""What every package is made by: its options, the artifact's leave to be served, and copies that are checked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from zipfile import ZipFile, ZipInfo

from pydantic import ValidationError

from mlpack.core.runtime import Archive, PackageOptions
from mlpack.errors import Tampered, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import Content


def options_from(fields: Mapping[str, object]) -> PackageOptions:
    """The options that were asked for.

    Raises:
        UsageError: a value that this option cannot have.
    """
    try:
        return PackageOptions.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        told = PackageOptions.model_fields[name].description
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} {first['input']}: {first['msg']}", f"{flag} is the {told}") from error


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
