"""`mlpack.report()`: an artifact as one HTML page."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.api.lookup import artifact
from mlpack.api.pages import check_free
from mlpack.core.filesystem import write_atomic
from mlpack.errors import Tampered

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.artifact import Artifact

_TIMINGS = "latency-timings.npz"


@dataclass(frozen=True)
class Reported:
    """The page that was written."""

    path: Path
    artifact: str
    size_bytes: int

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"path": str(self.path), "artifact": self.artifact, "size_bytes": self.size_bytes}


def report(
    ref: str | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    *,
    force: bool = False,
) -> Reported:
    """Render the report of an artifact anew, as one HTML page that needs no network.

    Without `out` the page is NAME-VERSION.html in the current folder.

    Raises:
        UsageError: an unknown artifact, or a file that is there already without `force`.
        Tampered: the artifact's files are damaged.
        MachineError: the disk is full or the place cannot be written.
    """
    stored = artifact(ref, store)
    this = stored.artifact
    place = Path(out or f"{this.name}-{this.version}.html").expanduser().absolute()
    check_free(place, inside=(stored.path,), force=force)
    page = page_of(this, stored.path / "reports").encode()
    write_atomic(place, page)
    return Reported(path=place, artifact=f"{this.name}@{this.version}", size_bytes=len(page))


def page_of(this: Artifact, reports: Path) -> str:
    """The page of an artifact whose stage reports and timings lie in `reports`.

    Raises:
        Tampered: one of these files cannot be read.
    """
    from mlpack.reports.html import render

    check = f"mlpack verify {this.name}@{this.version}"
    found = {file.stem: _json(file, check) for file in sorted(reports.glob("*.json"))}
    return render(this, _timings(reports / _TIMINGS, check), found)


def _json(file: Path, check: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Tampered(f"{file} is damaged: {error}", check) from error
    if not isinstance(content, dict):
        raise Tampered(f"{file} is damaged: it holds no report", check)
    return content


def _timings(file: Path, check: str) -> dict[str, np.ndarray]:
    from mlpack.core.arrays import load_arrays

    if not file.is_file():
        return {}
    try:
        return load_arrays(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Tampered(f"{file} is damaged: {error}", check) from error
