"""`mlpack verify`: has any file changed?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.cli.options import MaybeRef, Store
from mlpack.core.wording import count, size

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def command(screen: Screen, reference: MaybeRef = None, store: Store = None) -> None:
    """Check that no file of an artifact, or of a package given by its path, has changed."""
    from mlpack.api.verify import verify

    done = verify(reference, store)
    said = f"{count(done.files, 'file')}, {size(done.size_bytes)}, all as published; digest {done.digest[:16]}"
    screen.result(done.model_dump(mode="json"), f"{done.path}: {said}")
