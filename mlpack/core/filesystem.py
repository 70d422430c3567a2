"""Writing so that a killed process leaves nothing half-made; the machine's refusals told in one place."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mlpack.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TEMPORARY = re.compile(r"^\..+\.tmp-(?P<pid>\d+)-[0-9a-f]+$", re.DOTALL)
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_CLOSED = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "the operation is not permitted",
}
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


@contextmanager
def refused_by_machine(path: Path) -> Iterator[None]:
    """Turn a full disk or a place that cannot be written into a MachineError that says the path.

    Raises:
        MachineError: ENOSPC, EDQUOT, EROFS, EACCES or EPERM came out of the block.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or path
        if error.errno in _FULL:
            raise MachineError(*disk_full(where, _FULL[error.errno])) from error
        if error.errno in _CLOSED:
            raise MachineError(
                f"no access to {where}: {_CLOSED[error.errno]}",
                "get access to it, or set MLPACK_STORE and MLPACK_CACHE to folders of your own",
            ) from error
        raise


def disk_full(where: object, what: str = "the disk is full") -> tuple[str, str]:
    """Message and hint of a MachineError."""
    hint = (
        "free some space (`mlpack gc` removes what nothing refers to), or set MLPACK_STORE and "
        "MLPACK_CACHE to folders on another disk"
    )
    return f"cannot write {where}: {what}", hint


def make_folder(path: Path) -> None:
    """Make the folder and those around it, where they are not there yet.

    Raises:
        MachineError: the place cannot be written, or something else is in the way.
    """
    with refused_by_machine(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise MachineError(
                f"cannot make the folder {path}: {error.strerror}",
                "set MLPACK_STORE and MLPACK_CACHE to folders of your own",
            ) from error


def check_can_write(path: Path) -> None:
    """Try whether a folder could be made at `path`, and leave nothing behind.

    Raises:
        MachineError: it could not.
    """
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    probe = temporary_name(there / "probe")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise MachineError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}",
            "get access to it, or set MLPACK_STORE and MLPACK_CACHE to folders of your own",
        ) from error


def check_room(path: Path, needed_bytes: int) -> None:
    """Whether the disk has this much room; libraries that run out of it fail in ways that do not say so.

    Raises:
        MachineError: it has not.
    """
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        what = f"the disk is nearly full ({free / 1e6:.0f} MB left, {needed_bytes / 1e6:.0f} MB may be needed)"
        raise MachineError(*disk_full(path, what))


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses and `sweep` knows: `.<name>.tmp-<pid>-<random>`."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def temporary_sibling(path: Path) -> Path:
    """A new empty folder beside `path`, to be filled and renamed to `path`.

    Raises:
        MachineError: the disk is full or the place cannot be written.
    """
    folder = temporary_name(path)
    make_folder(folder)
    return folder


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that readers see the old content or the new one, also after a power cut.

    Raises:
        MachineError: the disk is full or the place cannot be written.
    """
    raw = content.encode() if isinstance(content, str) else content
    temporary = temporary_name(path)
    make_folder(path.parent)
    with refused_by_machine(path):
        try:
            with temporary.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: Path, to: Path) -> None:
    """Give `to` the content of `source`: a hard link where the file system allows it, else a copy.

    Raises:
        MachineError: the disk is full or the place cannot be written.
    """
    with refused_by_machine(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), to)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            shutil.copyfile(source, to)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing there is fine.

    Raises:
        MachineError: the place cannot be written.
    """
    with refused_by_machine(path), suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def abandoned(folder: Path) -> list[Path]:
    """The temporaries directly inside `folder` whose process is dead."""
    if not folder.is_dir():
        return []
    return [
        entry
        for entry in sorted(folder.iterdir())
        if (match := _TEMPORARY.match(entry.name)) and not alive(int(match["pid"]))
    ]


def sweep(folder: Path) -> list[Path]:
    """Remove the temporaries of dead processes directly inside `folder`; what was removed.

    Raises:
        MachineError: the place cannot be written.
    """
    found = abandoned(folder)
    for entry in found:
        remove(entry)
    return found


def alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - millions of files, no Path each
    return total
