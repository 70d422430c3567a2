"""Tags: names that point at versions, kept in `<store>/<name>/tags.json`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from filelock import FileLock

from mlpack.core.filesystem import refused_by_machine, write_atomic
from mlpack.errors import Tampered, UsageError
from mlpack.store.names import check_tag
from mlpack.store.read import home_of, lies_in_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.core.artifact import Stored

_FILE = "tags.json"


def read_tags(folder: Path) -> dict[str, int]:
    """The tags in `<store>/<name>`, each with the version it points at.

    Raises:
        Tampered: the file is damaged.
    """
    file = folder / _FILE
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Tampered(f"{file} is damaged: {error}", f"remove {file} and tag again") from error
    is_sound = isinstance(content, dict) and all(type(version) is int for version in content.values())
    if not is_sound:
        raise Tampered(f"{file} is damaged: no versions by tag", f"remove {file} and tag again")
    return content  # type: ignore[no-any-return]


def tags_of(stored: Stored) -> list[str]:
    """The tags that point at this artifact."""
    tags = read_tags(stored.path.parent) if lies_in_store(stored) else {}
    return sorted(tag for tag, version in tags.items() if version == stored.artifact.version)


def set_tag(stored: Stored, tag: str, *, candidates: Literal["refuse", "accept"] = "refuse") -> int | None:
    """Point `tag` at this artifact; the version that it pointed at before.

    Raises:
        UsageError: the tag is no good one, or the artifact is a candidate and `candidates` is not "accept".
        MachineError: the store cannot be written.
    """
    check_tag(tag)
    artifact = stored.artifact
    if artifact.status == "candidate" and candidates != "accept":
        raise UsageError(
            f"{artifact.name}@{artifact.version} is a candidate: verdict {artifact.accuracy.verdict!r}",
            f"mlpack tag {artifact.name}@{artifact.version} {tag} --force",
        )
    folder = home_of(stored)
    with _locked(folder):
        tags = read_tags(folder)
        before = tags.get(tag)
        tags[tag] = artifact.version
        write_atomic(folder / _FILE, json.dumps(tags, indent=2, sort_keys=True) + "\n")
    return before


def drop_tags(folder: Path, version: int) -> None:
    """Remove the tags that point at a version of `<store>/<name>`."""
    with _locked(folder):
        tags = read_tags(folder)
        kept = {tag: each for tag, each in tags.items() if each != version}
        if kept != tags:
            write_atomic(folder / _FILE, json.dumps(kept, indent=2, sort_keys=True) + "\n")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with refused_by_machine(folder):
        lock = FileLock(folder / ".tags.lock")
        lock.acquire(timeout=60)
    try:
        yield
    finally:
        lock.release()
