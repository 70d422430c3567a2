"""Reads `artifact.json` and the folders of a store; never writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

import mlpack
from mlpack.core.artifact import SCHEMA, Artifact, Stored
from mlpack.core.filesystem import refused_by_machine
from mlpack.errors import Tampered, UsageError
from mlpack.store.names import NAME

if TYPE_CHECKING:
    from pathlib import Path

ARTIFACT = "artifact.json"
_RESTORE = "restore it from a copy, or publish again"


def read(folder: Path) -> Stored:
    """The artifact in this folder.

    Raises:
        UsageError: there is none, or it is of a schema that this mlpack does not read.
        Tampered: `artifact.json` is damaged.
    """
    file = folder / ARTIFACT
    try:
        with refused_by_machine(file):
            content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} is no artifact: it has no {ARTIFACT}", "mlpack list shows what is there") from None
    except ValueError as error:
        raise Tampered(f"{file} is damaged: {error}", _RESTORE) from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise Tampered(f"{file} is damaged: it has no schema number", _RESTORE)
    if content["schema"] > SCHEMA:
        raise _newer(file, f"schema {content['schema']}, and mlpack {mlpack.__version__} reads {SCHEMA}", content)
    try:
        return Stored(path=folder.absolute(), artifact=Artifact.model_validate(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        if _is_newer(content.get("mlpack_version")):
            raise _newer(file, f"{where}, which mlpack {mlpack.__version__} does not know", content) from error
        raise Tampered(f"{file} is damaged: {where}: {first['msg']}", _RESTORE) from error


def lies_in_store(stored: Stored) -> bool:
    """Whether the folder is `<name>/<version>` of a store, not a copy somewhere else."""
    artifact = stored.artifact
    return (stored.path.parent.name, stored.path.name) == (artifact.name, str(artifact.version))


def home_of(stored: Stored) -> Path:
    """The folder `<store>/<name>` that an artifact lies in.

    Raises:
        UsageError: it lies in no store.
    """
    if not lies_in_store(stored):
        raise UsageError(f"{stored.path} lies in no store", "name it as NAME@VERSION: mlpack list shows them")
    return stored.path.parent


def names(store: Path) -> list[str]:
    """The names of the artifacts in a store; none where there is no store yet.

    Raises:
        UsageError: the store is a file.
    """
    if store.exists() and not store.is_dir():
        raise UsageError(f"the store {store} is no folder", "choose another one: --store DIR")
    if not store.is_dir():
        return []
    return sorted(entry.name for entry in store.iterdir() if NAME.fullmatch(entry.name) and versions(entry))


def versions(folder: Path) -> list[int]:
    """The versions in `<store>/<name>`, ascending. A version that is there is complete."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isascii() and entry.name.isdigit() and entry.name[0] != "0" and entry.is_dir()
    )


def _is_newer(version: Any) -> bool:
    try:
        return Version(str(version)) > Version(mlpack.__version__)
    except InvalidVersion:
        return False


def _newer(file: Path, what: str, content: dict[str, Any]) -> UsageError:
    writer = content.get("mlpack_version", "of a later date")
    return UsageError(f"{file} has {what}; mlpack {writer} wrote it", f"pip install 'mlpack-toolchain>={writer}'")
