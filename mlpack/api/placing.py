"""How a model, or a version of it, comes into a repository that a server watches: all of it in one rename."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

from mlpack.api.packing import write_file
from mlpack.core.filesystem import refused_by_machine, remove, sync, temporary_sibling
from mlpack.core.model import sha256_of
from mlpack.errors import MachineError, Tampered, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import Content

RECORD = "mlpack-version.json"


def add(stored: Stored, model: Path, repository: Path, files: Mapping[str, Content], *, whole: bool) -> bool:
    """Rename the model, or the version, into the repository; whether it was not there yet.

    Raises:
        Tampered: a file of the artifact is not the one that was published, or another artifact lies under this version.
        UsageError: the model is there without a configuration, or was made in the meantime.
        MachineError: the disk is full or the place cannot be written.
    """
    artifact = stored.artifact
    record = f"{artifact.version}/{RECORD}"
    place = model if whole else model / str(artifact.version)
    if not whole and place.exists():
        _check_the_same(place / RECORD, model, stored)
        return False
    if whole and model.exists():
        raise UsageError(f"{model} is there without a configuration", "remove it, or choose another repository")
    # Beside the repository: what lies in it for a moment, a server that watches it would take for a model.
    folder = temporary_sibling(repository)
    try:
        with refused_by_machine(place):
            sums = {relative: write_file(folder / relative, content, (stored,)) for relative, content in files.items()}
            told = {
                "name": artifact.name,
                "version": artifact.version,
                "artifact_digest": artifact.digest,
                "files": sums,
            }
            (folder / record).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            _rename(folder if whole else folder / str(artifact.version), place)
            sync(place.parent)
    finally:
        remove(folder)
    return True


def _rename(folder: Path, place: Path) -> None:
    try:
        # A folder that somebody made in the meantime is not replaced: rename refuses a folder with files.
        folder.rename(place)
    except OSError as error:
        if error.errno == errno.EXDEV:
            repository = folder.parent
            raise MachineError(
                f"{place} lies on another file system than {repository}, beside which it is written",
                "choose a folder in it as the repository: --into REPO/models",
            ) from error
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise UsageError(f"{place} was made in the meantime", "give the same command again") from error
        raise


def _check_the_same(record: Path, model: Path, stored: Stored) -> None:
    """Whether the version that is there is this artifact, file by file.

    Raises:
        Tampered: it is another one, or nobody knows which, or one of its files was altered.
    """
    artifact = stored.artifact
    sums: dict[str, str] = {}
    try:
        told = json.loads(record.read_bytes())
        digest, sums = told["artifact_digest"], told["files"]
    except (OSError, ValueError, KeyError, TypeError):
        digest = None
    if digest != artifact.digest:
        whose = "was put there by something else" if digest is None else f"is of another artifact ({digest[:12]})"
        raise Tampered(
            f"{record.parent} is there and {whose}",
            f"publish {artifact.name} again under a new version, or choose another repository",
        )
    for relative, published in sums.items():
        if not relative.startswith(f"{artifact.version}/"):
            continue  # a configuration is everybody's
        path = model / relative
        if not path.is_file() or sha256_of(path) != published:
            raise Tampered(f"{path} is not the file that was put there", f"remove {record.parent} and add it again")
