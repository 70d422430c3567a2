"""`mlpack.save()`: an artifact as one file to carry elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpack.api.lookup import artifact
from mlpack.errors import UsageError


@dataclass(frozen=True)
class Saved:
    """The file that was written."""

    path: Path
    artifact: str
    digest: str
    size_bytes: int

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "path": str(self.path), "artifact": self.artifact, "digest": self.digest, "size_bytes": self.size_bytes,
        }  # fmt: skip


def save(ref: str | None, file: str | Path, store: str | Path | None = None, *, force: bool = False) -> Saved:
    """Check every file of an artifact and write them as one tar; `mlpack.load` takes it into another store.

    Raises:
        UsageError: an unknown artifact, or a file that is there already without `force`.
        Tampered: a file is not as it was published.
        MachineError: the disk is full or the place cannot be written.
    """
    from mlpack.store.transfer import pack

    stored = artifact(ref, store)
    this = stored.artifact
    place = Path(file).expanduser().absolute()
    if place.is_dir():
        raise UsageError(f"{place} is a folder", f"name a file in it: {place}/{this.name}-{this.version}.tar")
    if (place.exists() or place.is_symlink()) and not force:
        raise UsageError(f"{place} is there already", "replace it with --force, or choose another name")
    size = pack(stored, place)
    return Saved(path=place, artifact=f"{this.name}@{this.version}", digest=this.digest, size_bytes=size)
