"""`mlpack.verify()`: are the files those that were published?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.lookup import artifact

if TYPE_CHECKING:
    from mlpack.store.verify import Verified


def verify(reference: str | None = None, store: str | Path | None = None) -> Verified:
    """Recompute the sha256 of every file and the digest of an artifact, or of a package by its path.

    Raises:
        UsageError: there is no such artifact or package.
        Tampered: a file is changed, missing or too much; the message names them.
    """
    from mlpack.store.verify import PACKAGE
    from mlpack.store.verify import verify as verify_folder

    if reference is not None and (Path(reference) / PACKAGE).is_file():
        return verify_folder(Path(reference))
    return verify_folder(artifact(reference, store).path)
