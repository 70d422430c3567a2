"""Where an HTML page may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def check_free(place: Path, *, inside: Iterable[Path], force: bool) -> None:
    """Refuse a place that is taken, or that lies in one of these artifacts' folders.

    Raises:
        UsageError: and another place to write it to.
    """
    if any(place.is_relative_to(folder) for folder in inside):
        raise UsageError(
            f"{place} lies inside the artifact, which never changes", f"choose another file: --out {place.name}"
        )
    if place.is_dir():
        raise UsageError(f"{place} is a folder", f"choose a file: --out {place.name}/report.html")
    if (place.exists() or place.is_symlink()) and not force:
        raise UsageError(
            f"{place} is there already",
            f"replace it with --force, or choose another: --out {place.stem}-2{place.suffix}",
        )
