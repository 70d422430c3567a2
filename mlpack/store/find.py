"""Finds the artifact that a reference means."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import UsageError, unknown
from mlpack.store.names import Reference, parse
from mlpack.store.read import ARTIFACT, names, read, versions
from mlpack.store.tags import read_tags

if TYPE_CHECKING:
    from mlpack.core.artifact import Stored


def find(store: Path, reference: str | None, usual_name: str | None = None) -> Stored:
    """The artifact that `reference` means; None: `usual_name`, or the only name in the store.

    `latest` is the highest version, candidates included; the status is for the caller to look at.

    Raises:
        UsageError: nothing is there under this reference; the hint has what is nearest.
        Tampered: its `artifact.json` is damaged.
    """
    if reference is None:
        return _find(store, Reference(usual_name or _only_name(store)))
    path = Path(reference).expanduser()
    if path.name == ARTIFACT and path.is_file():
        return read(path.parent)
    if "/" in reference or (path / ARTIFACT).is_file():
        if not path.exists():
            raise UsageError(f"there is no {path}", f"mlpack list --store {store}")
        return read(path)
    return _find(store, parse(reference))


def all_versions(store: Path, name: str) -> list[Stored]:
    """Every version of a name, oldest first."""
    return [read(store / name / str(version)) for version in versions(store / name)]


def _only_name(store: Path) -> str:
    found = names(store)
    if len(found) == 1:
        return found[0]
    if not found:
        raise _empty(store)
    raise UsageError(f"which artifact? The store {store} has {len(found)}", f"name one: {', '.join(found)}")


def _empty(store: Path) -> UsageError:
    return UsageError(f"the store {store} is empty", "fill it: mlpack optimize MODEL --data DATA")


def _find(store: Path, wanted: Reference) -> Stored:
    there = versions(store / wanted.name)
    if not there:
        known = names(store)
        if not known:
            raise _empty(store)
        wrong = unknown("artifact", wanted.name, known)
        raise UsageError(f"{wrong.message} in {store}", wrong.hint)
    if wanted.digest is not None:
        return _by_digest(store, wanted.name, wanted.digest)
    version = there[-1]
    if wanted.version is not None:
        version = wanted.version
    elif wanted.tag is not None:
        version = _by_tag(store, wanted.name, wanted.tag)
    if version not in there:
        near = min(there, key=lambda each: abs(each - version))
        raise UsageError(
            f"{wanted.name} has no version {version}; it has {_listed(there)}",
            f"did you mean {wanted.name}@{near}?",
        )
    return read(store / wanted.name / str(version))


def _by_tag(store: Path, name: str, tag: str) -> int:
    tags = read_tags(store / name)
    if tag not in tags:
        known = sorted([*tags, "latest"])
        near = difflib.get_close_matches(tag, known, n=1, cutoff=0.5)
        hint = f"did you mean {name}@{near[0]}?" if near else f"known: {', '.join(known)}"
        raise UsageError(f"{name} has no tag {tag!r}", hint)
    return tags[tag]


def _by_digest(store: Path, name: str, prefix: str) -> Stored:
    found = [stored for stored in all_versions(store, name) if stored.artifact.digest.startswith(prefix)]
    if not found:
        raise UsageError(f"no version of {name} has a digest with the prefix {prefix}", f"mlpack list {name}")
    if len(found) > 1:
        said = ", ".join(f"{name}@{stored.artifact.version}" for stored in found)
        raise UsageError(f"the digest prefix {prefix} fits {said}", "write more of its digits")
    return found[0]


def _listed(there: list[int]) -> str:
    return ", ".join(map(str, there)) if len(there) <= 8 else f"{there[0]} to {there[-1]}"  # noqa: PLR2004
