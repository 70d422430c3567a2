"""Publishes a prepared folder as the next version of an artifact, in one rename."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

from mlpack.core.artifact import Stored
from mlpack.core.filesystem import (
    check_can_write,
    link_or_copy,
    make_folder,
    refused_by_machine,
    remove,
    sweep,
    sync,
    temporary_sibling,
)
from mlpack.core.model import sha256_of
from mlpack.errors import UsageError
from mlpack.store.names import check_name
from mlpack.store.read import ARTIFACT, read, versions

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.artifact import Artifact

HIGHEST = ".highest-version"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


def publish(store: Path, draft: Path, artifact: Artifact) -> Stored:
    """Publish the files of `draft` (model/, golden/, reports/ …) with `artifact` as the next version.

    `version`, `digest` and `files` of the artifact are filled in here. Files are hard-linked where possible
    and become read-only, those of the draft too. A process that is killed leaves only a temporary, which the
    next one sweeps; two processes that publish at once get two versions.

    Raises:
        UsageError: the name cannot be used, or the store is a file.
        MachineError: the disk is full or the store cannot be written.
    """
    _check_is_folder(store)
    home = store / check_name(artifact.name)
    make_folder(home)
    with refused_by_machine(home):
        sweep(home)
    folder = temporary_sibling(home / "version")
    try:
        with refused_by_machine(home):
            files = _fill(draft, folder)
            while True:
                numbered = artifact.model_copy(update={"version": next_version(home), "files": files})
                finished = numbered.model_copy(update={"digest": numbered.identity()})
                place = home / str(finished.version)
                _write_record(folder, finished)
                if _renamed(folder, place):
                    sync(home)
                    return Stored(path=place.absolute(), artifact=finished)
    except BaseException:
        remove(folder)
        raise


def check_store(store: Path) -> None:
    """Whether there can be published into this store: asked before work that would be in vain.

    Raises:
        UsageError: the store is a file.
        MachineError: it cannot be written.
    """
    _check_is_folder(store)
    check_can_write(store)


def _check_is_folder(store: Path) -> None:
    if store.exists() and not store.is_dir():
        raise UsageError(f"the store {store} is no folder", "choose another one: --store DIR")


def next_version(home: Path) -> int:
    """The number after the highest one that `<store>/<name>` ever had."""
    there = versions(home)
    # Read after listing: a removal writes this file before it takes the folder away.
    file = home / HIGHEST
    highest = int(file.read_text()) if file.exists() else 0
    return max([highest, *there]) + 1


def same_as_latest(store: Path, artifact: Artifact) -> Stored | None:
    """The latest version of this name if lineage, limit and verdict are those of `artifact`, else None."""
    there = versions(store / check_name(artifact.name))
    if not there:
        return None
    latest = read(store / artifact.name / str(there[-1]))
    return latest if _what_counts(latest.artifact) == _what_counts(artifact) else None


def _what_counts(artifact: Artifact) -> tuple[object, ...]:
    keys = tuple(record.key for record in artifact.lineage)
    pipeline = artifact.pipeline and artifact.pipeline.digest
    return (keys, pipeline, artifact.accuracy.limit_text, artifact.accuracy.verdict, artifact.status)


def _fill(draft: Path, folder: Path) -> dict[str, str]:
    """Link the draft's files into the folder; their sha256 by relative path."""
    files: dict[str, str] = {}
    for source in sorted(draft.rglob("*")):
        relative = source.relative_to(draft).as_posix()
        if not source.is_file() or relative == ARTIFACT:
            continue
        place = folder / relative
        link_or_copy(source, place)
        place.chmod(0o444)
        sync(place)
        files[relative] = sha256_of(place)
    for parent in sorted({(folder / relative).parent for relative in files}):
        sync(parent)
    return files


def _write_record(folder: Path, artifact: Artifact) -> None:
    file = folder / ARTIFACT
    file.unlink(missing_ok=True)
    content = artifact.model_dump(mode="json", by_alias=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    file.chmod(0o444)
    sync(file)
    sync(folder)


def _renamed(folder: Path, place: Path) -> bool:
    """Whether the folder could take its place; False: another process was quicker."""
    try:
        os.rename(folder, place)  # noqa: PTH104 - Path.rename says no more, and this is the one moment that counts
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True
