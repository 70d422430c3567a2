"""`mlpack.targets()`: the hardware that models can be made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlpack.core.target import Target


def targets(name: str | None = None) -> tuple[Target, ...]:
    """This machine and every row of the catalogue, or the one of this name or file.

    Raises:
        UsageError: no such target (the hint has the nearest right spelling), or the file does not describe one.
    """
    from mlpack.core import targets as catalogue

    return (catalogue.load_target(name),) if name else catalogue.targets()
