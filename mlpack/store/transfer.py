"""An artifact as one tar, and back: checked on both sides, and nothing is written outside of the store."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mlpack.core.filesystem import (
    check_room,
    make_folder,
    refused_by_machine,
    remove,
    sweep,
    sync,
    temporary_name,
    temporary_sibling,
)
from mlpack.errors import Tampered, UsageError
from mlpack.store.names import check_name
from mlpack.store.publish import check_store, publish
from mlpack.store.read import ARTIFACT, read
from mlpack.store.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.artifact import Stored

_HINT = "mlpack save REF FILE.tar writes such files; copy it again"


@dataclass(frozen=True)
class Loaded:
    """The artifact as it lies in the store now.

    `there`: it did already. `renumbered`: the number that it was saved under, which another artifact has here.
    """

    stored: Stored
    there: bool = False
    renumbered: int | None = None


def pack(stored: Stored, file: Path) -> int:
    """Write the artifact's folder as a tar, after checking every file; its size in bytes.

    Equal artifacts give equal tars: names are sorted, times and owners left out.

    Raises:
        Tampered: a file is not as it was published.
        MachineError: the disk is full or the place cannot be written.
    """
    verify(stored.path)
    this = stored.artifact
    names = sorted([ARTIFACT, *this.files])
    make_folder(file.parent)
    temporary = temporary_name(file)
    try:
        with refused_by_machine(file), tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in names:
                member = tarfile.TarInfo(f"{this.name}/{this.version}/{name}")
                member.size = (stored.path / name).stat().st_size
                member.mode = 0o444
                with (stored.path / name).open("rb") as content:
                    archive.addfile(member, content)
        with refused_by_machine(file):
            sync(temporary)
            temporary.replace(file)
            sync(file.parent)
    finally:
        remove(temporary)
    return file.stat().st_size


def unpack(file: Path, store: Path) -> Loaded:
    """Take a packed artifact into the store, under its own number where that is free.

    Where another artifact has that number, it is published under the next one. Every sha256 and the digest are
    checked before it is seen by anybody.

    Raises:
        UsageError: no tar, or not of one artifact.
        Tampered: its content is not what was packed, or a name in it leads elsewhere.
        MachineError: the disk is full or the store cannot be written.
    """
    check_store(store)
    with _opened(file) as archive:
        members, home, version = _members(archive, file)
        home_folder = store / home
        make_folder(home_folder)
        with refused_by_machine(home_folder):
            sweep(home_folder)
        check_room(home_folder, sum(member.size for member in members))
        folder = temporary_sibling(home_folder / "version")
        try:
            with refused_by_machine(folder):
                _extract(archive, members, folder, file)
            verify(folder)
            return _placed(folder, home_folder / version, store, file)
        finally:
            remove(folder)


def _opened(file: Path) -> tarfile.TarFile:
    if not file.is_file():
        raise UsageError(f"there is no file {file}", _HINT)
    try:
        return tarfile.open(file, "r:")
    except tarfile.TarError as error:
        raise UsageError(f"{file} is no tar: {error}", _HINT) from error


def _members(archive: tarfile.TarFile, file: Path) -> tuple[list[tarfile.TarInfo], str, str]:
    """The files, all below one NAME/VERSION.

    Raises:
        Tampered: it is cut off, or a member is no plain file, or leads elsewhere.
        UsageError: it holds something else than one artifact.
    """
    try:
        members = archive.getmembers()
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise Tampered(f"{file} is damaged: {error}", _HINT) from error
    for member in members:
        path = PurePosixPath(member.name)
        if not member.isreg() or path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise Tampered(f"{file} holds {member.name!r}, which is no plain file inside of it", "do not use it")
    roots = {PurePosixPath(member.name).parts[:2] for member in members}
    root = next(iter(roots), ())
    deep = all(len(PurePosixPath(member.name).parts) > 2 for member in members)  # noqa: PLR2004 - NAME/VERSION/FILE
    if len(roots) != 1 or not deep or not (root[1].isascii() and root[1].isdigit()):
        raise UsageError(f"{file} does not hold one artifact", _HINT)
    return members, check_name(root[0]), str(int(root[1]))


def _extract(archive: tarfile.TarFile, members: list[tarfile.TarInfo], folder: Path, file: Path) -> None:
    """Write the files below NAME/VERSION into the folder.

    Raises:
        Tampered: it is cut off, or names cannot be those of an artifact's files.
    """
    try:
        for member in members:
            place = folder.joinpath(*PurePosixPath(member.name).parts[2:])
            place.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            with place.open("xb") as out:
                shutil.copyfileobj(content, out)
            place.chmod(0o444)
            sync(place)
    except (tarfile.TarError, EOFError, ValueError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Tampered(f"{file} is damaged: {error}", _HINT) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise Tampered(f"{file} is damaged: {error.strerror}", _HINT) from error


def _placed(folder: Path, place: Path, store: Path, file: Path) -> Loaded:
    this = read(folder).artifact
    if (this.name, str(this.version)) != (place.parent.name, place.name):
        raise Tampered(f"{file} says {place.parent.name}@{place.name} but holds {this.name}@{this.version}", _HINT)
    try:
        os.rename(folder, place)  # noqa: PTH104 - the one moment that counts, as in publish
    except OSError:
        if not (place / ARTIFACT).is_file():
            raise
        there = read(place)
        if there.artifact.digest == this.digest:
            return Loaded(there, there=True)
        (folder / ARTIFACT).unlink()
        return Loaded(publish(store, folder, this), renumbered=this.version)
    sync(place.parent)
    return Loaded(read(place))
