"""`mlpack.list_artifacts()`: what the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.lookup import store_folder
from mlpack.core.summary import Grid, Told
from mlpack.core.wording import size, speed
from mlpack.core.words import Frozen
from mlpack.errors import MlpackError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.artifact import Stored
    from mlpack.core.summary import Part


class Listed(Frozen):
    """One version in a few words. With a `problem` it could not be read and the rest is unknown."""

    name: str
    version: int
    path: Path
    tags: tuple[str, ...] = ()
    status: str | None = None
    verdict: str | None = None
    created: str | None = None
    digest: str | None = None
    numerics: str | None = None
    backend: str | None = None
    target: str | None = None
    size_bytes: int | None = None
    drop: float | None = None
    speedup: float | None = None
    problem: str | None = None

    @property
    def row(self) -> tuple[str | None, ...]:
        """The cells of its row."""
        label = f"{self.name}@{self.version}"
        if self.problem:
            return (label, "unreadable")
        verdict = self.verdict if self.status == "final" else f"{self.verdict} ({self.status})"
        shown = (self.numerics, self.backend, self.target, size(self.size_bytes), speed(self.speedup))
        return (label, verdict, *shown, " ".join(self.tags))


class Listing(tuple[Listed, ...], Told):  # noqa: SLOT001 - it knows its store
    """What a store holds, oldest version first."""

    store: Path

    def summary(self) -> Iterator[Part]:
        """A row for each version."""
        if not self:
            yield f"{self.store} is empty; mlpack optimize MODEL --data DATA fills it"
            return
        columns = ("artifact", "verdict", "numerics", "backend", "target", "size", "speed", "tags")
        yield Grid(columns, [each.row for each in self], title=str(self.store), right=("size", "speed"))
        for each in self:
            if each.problem:
                yield f"warning: {each.problem}"


def list_artifacts(name: str | None = None, store: str | Path | None = None) -> Listing:
    """All versions in the store, or those of one name, oldest first.

    Raises:
        UsageError: no artifact has this name, or the store is a file.
    """
    from mlpack.store.read import names, versions

    folder = store_folder(store)
    known = names(folder)
    if name is not None and name not in known:
        raise unknown("artifact", name, known)
    found = Listing(
        _listed(folder, each, version) for each in ([name] if name else known) for version in versions(folder / each)
    )
    found.store = folder
    return found


def _listed(folder: Path, name: str, version: int) -> Listed:
    from mlpack.store.read import read
    from mlpack.store.tags import tags_of

    path = folder / name / str(version)
    try:
        stored = read(path)
        return _described(stored, tuple(tags_of(stored)))
    except MlpackError as error:
        return Listed(name=name, version=version, path=path, problem=error.message)


def _described(stored: Stored, tags: tuple[str, ...]) -> Listed:
    artifact = stored.artifact
    return Listed(
        name=artifact.name,
        version=artifact.version,
        path=stored.path,
        tags=tags,
        status=artifact.status,
        verdict=artifact.accuracy.verdict,
        created=artifact.created,
        digest=artifact.digest,
        numerics=artifact.model.numerics,
        backend=artifact.model.backend,
        target=str(artifact.target.get("name", "")),
        size_bytes=artifact.model.size_bytes,
        drop=artifact.accuracy.drop,
        speedup=next((each.speedup for each in artifact.latency if each.speedup is not None), None),
    )
