"""`mlpack.gc()`: remove leftovers of dead processes and cached work that nothing refers to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlpack.api.lookup import cache_folder, store_folder

if TYPE_CHECKING:
    from mlpack.store.remove import Leftover


def gc(
    store: str | Path | None = None,
    mode: Literal["remove", "list"] = "remove",
    younger_than_s: float = 3600,
) -> tuple[Leftover, ...]:
    """Temporaries of dead processes, kept ranges, unfinished work, compiled code, cached stages of no artifact here.

    What was finished within the last `younger_than_s` seconds stay: a run may be using them. What a run that
    missed its limit has kept counts as unreferenced: it would have to be done again.

    Raises:
        Tampered: an artifact of the store cannot be read, so what it refers to is unknown.
        MachineError: the store or the cache cannot be written.
    """
    from mlpack.core.filesystem import remove
    from mlpack.store.remove import leftovers

    found = leftovers(store_folder(store), cache_folder(), younger_than_s=younger_than_s)
    if mode == "remove":
        for each in found:
            remove(Path(each.path))
    return tuple(found)
