"""Removes versions, leftovers of dead processes, and cached work that no artifact refers to."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Literal

from mlpack.core.filesystem import (
    abandoned,
    refused_by_machine,
    remove,
    size_on_disk,
    temporary_name,
    write_atomic,
)
from mlpack.core.settings import COMPILED, UNFINISHED
from mlpack.core.words import Frozen
from mlpack.errors import UsageError
from mlpack.store.find import all_versions
from mlpack.store.publish import HIGHEST, next_version
from mlpack.store.read import home_of, names
from mlpack.store.tags import drop_tags, tags_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.core.artifact import Stored

STAGE_RECORD = "stage.json"


class Leftover(Frozen):
    """Something that may go: a dead process's temporary, or cached work that no artifact refers to."""

    path: str
    kind: Literal["temporary", "stage", "ranges", "unfinished", "compiled"]
    size_bytes: int


def remove_version(stored: Stored, *, tagged: Literal["refuse", "remove"] = "refuse") -> int:
    """Remove one version from its store; the bytes that were in it. Its number is never given again.

    Raises:
        UsageError: a tag points at it and `tagged` is "refuse", or it lies in no store.
        MachineError: the store cannot be written.
    """
    artifact, home = stored.artifact, home_of(stored)
    tags = tags_of(stored)
    label = f"{artifact.name}@{artifact.version}"
    if tags and tagged == "refuse":
        raise UsageError(f"{label} is tagged {', '.join(tags)}", f"mlpack rm {label} --force")
    size_bytes = size_on_disk(stored.path)
    if next_version(home) == artifact.version + 1:
        write_atomic(home / HIGHEST, f"{artifact.version}\n")
    gone = temporary_name(stored.path)
    with refused_by_machine(stored.path):
        os.rename(stored.path, gone)  # noqa: PTH104 - one step: no reader sees half a version
    drop_tags(home, artifact.version)
    remove(gone)
    return size_bytes


def leftovers(store: Path, cache: Path, *, younger_than_s: float) -> list[Leftover]:
    """What may go: temporaries of dead processes, cached ranges, unfinished work, compiled code, stages of no artifact.

    What was touched within the last `younger_than_s` seconds stays: a run may be using it.
    """
    found = [
        Leftover(path=str(path), kind="temporary", size_bytes=size_on_disk(path)) for path in _temporaries(store, cache)
    ]
    kept = {
        record.key
        for name in names(store)
        for stored in all_versions(store, name)
        for record in stored.artifact.lineage
    }
    newest = time.time() - younger_than_s
    found += [
        Leftover(path=str(entry), kind="stage", size_bytes=size_on_disk(entry))
        for entry in cached_stages(cache)
        if entry.name not in kept and (entry / STAGE_RECORD).stat().st_mtime < newest
    ]
    kinds: tuple[Literal["ranges", "unfinished"], ...] = ("ranges", UNFINISHED)
    found += [
        Leftover(path=str(entry), kind=kind, size_bytes=size_on_disk(entry))
        for kind in kinds
        for entry in sorted((cache / kind).glob("*"))
        if max((each.stat().st_mtime for each in entry.iterdir()), default=0) < newest
    ]
    compiled = cache / COMPILED
    if compiled.is_dir() and max(each.stat().st_mtime for each in (compiled, *compiled.rglob("*"))) < newest:
        found.append(Leftover(path=str(compiled), kind="compiled", size_bytes=size_on_disk(compiled)))
    return found


def cached_stages(cache: Path) -> list[Path]:
    """The finished stages in the cache: folders with a stage.json, named by their key."""
    return sorted(record.parent for record in (cache / "stages").glob(f"*/*/{STAGE_RECORD}"))


def _temporaries(store: Path, cache: Path) -> Iterator[Path]:
    stages = cache / "stages"
    inner = [entry for entry in stages.iterdir() if entry.is_dir()] if stages.is_dir() else []
    ranges, unfinished = ((cache / kind).glob("*") for kind in ("ranges", UNFINISHED))
    for folder in (store, *(store / name for name in _homes(store)), cache, stages, *inner, *ranges, *unfinished):
        yield from abandoned(folder)


def _homes(store: Path) -> list[str]:
    """All names in the store, also those without a complete version."""
    if not store.is_dir():
        return []
    return sorted(entry.name for entry in store.iterdir() if entry.is_dir() and not entry.name.startswith("."))
