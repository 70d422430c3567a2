"""Takes the user's files over into a Model folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from mlpack.core.filesystem import refused_by_machine
from mlpack.core.loader import Loader

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.loader import Kind
    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Detected


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


class Archive:
    """A source that is one file which torch reads back by itself: taken over as it is."""

    def __init__(self, kind: Kind, name: str) -> None:
        self._kind, self._name = kind, name

    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Copy the file and say how it is loaded."""
        del spec
        copy_in(detected.file, out / self._name)
        Loader(kind=self._kind, sha256=detected.sha256, archive=self._name).write(out)
