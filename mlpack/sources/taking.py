"""Takes the user's files over into a Model folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from mlpack.core.filesystem import refused_by_machine

if TYPE_CHECKING:
    from pathlib import Path


def copy_in(source: Path, to: Path) -> None:
    """Copy one file of the user's.

    Never a hard link: torch.save and most writers truncate a file in place, and that would reach through the
    link and change a stage that is kept under the old content's key.

    Raises:
        MachineError: the disk is full or the place cannot be written.
    """
    with refused_by_machine(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, to)
