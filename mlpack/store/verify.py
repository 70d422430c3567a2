"""Checks that the files of an artifact or a package are those that were published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from mlpack.core.artifact import digest_of
from mlpack.core.model import sha256_of
from mlpack.core.words import Frozen
from mlpack.errors import Tampered, UsageError
from mlpack.store.read import ARTIFACT, read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGE = "mlpack-package.json"
_SHOWN = 5


class Verified(Frozen):
    """What was checked and found as it should be."""

    path: str
    kind: Literal["artifact", "package"]
    digest: str
    files: int
    size_bytes: int


def verify(folder: Path) -> Verified:
    """Recompute every sha256 and the digest of an artifact's or package's folder.

    Raises:
        UsageError: the folder is neither.
        Tampered: a file is changed, missing or too much (the message names them), or the record is.
    """
    if (folder / PACKAGE).is_file():
        return _verify_package(folder)
    if not (folder / ARTIFACT).is_file():
        raise UsageError(
            f"{folder} is neither an artifact nor a package: it has no {ARTIFACT} and no {PACKAGE}",
            "mlpack list shows what the store holds",
        )
    artifact = read(folder).artifact
    _compare(folder, artifact.files, ARTIFACT)
    # Of the file's own content: a record of an earlier mlpack lacks fields that a later one knows.
    content = json.loads((folder / ARTIFACT).read_bytes())
    if digest_of(content) != artifact.digest:
        raise Tampered(
            f"{folder / ARTIFACT} was changed: its digest is not that of its content",
            "restore it from a copy, or publish again",
        )
    return _verified(folder, "artifact", artifact.digest, artifact.files)


def _verify_package(folder: Path) -> Verified:
    file = folder / PACKAGE
    hint = "make the package again: mlpack package REF --runtime NAME"
    try:
        content = json.loads(file.read_bytes())
        files, digest = content["files"], content["artifact_digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise Tampered(f"{file} is damaged: {error!r}", hint) from error
    is_sound = isinstance(files, dict) and all(isinstance(each, str) for each in files.values())
    if not is_sound or not isinstance(digest, str):
        raise Tampered(f"{file} is damaged: no sha256 by file", hint)
    _compare(folder, files, PACKAGE)
    return _verified(folder, "package", digest, files)


def _compare(folder: Path, expected: Mapping[str, str], record: str) -> None:
    there = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    there.pop(record, None)
    changed = [
        name
        for name, digest in expected.items()
        if name in there and (there[name].is_symlink() or not there[name].is_file() or sha256_of(there[name]) != digest)
    ]
    problems = {
        "changed": changed,
        "missing": [name for name in expected if name not in there],
        "extra": [name for name in there if name not in expected],
    }
    if any(problems.values()):
        said = "; ".join(f"{kind}: {_some(found)}" for kind, found in problems.items() if found)
        raise Tampered(
            f"{folder} is not as published: {said}", "do not use it; restore it from a copy, or make it again"
        )


def _some(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _verified(folder: Path, kind: Literal["artifact", "package"], digest: str, files: Mapping[str, str]) -> Verified:
    size_bytes = sum((folder / name).stat().st_size for name in files)
    return Verified(path=str(folder), kind=kind, digest=digest, files=len(files), size_bytes=size_bytes)
