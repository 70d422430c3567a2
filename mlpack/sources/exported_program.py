"""A `.pt2` by torch.export.save: the safe, preferred form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.loader import Loader
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Detected, Source


class _ExportedProgram:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Take the archive over as it is."""
        del spec
        copy_in(detected.file, out / "model.pt2")
        Loader(kind="exported_program", sha256=detected.sha256, archive="model.pt2").write(out)


SOURCE: Source = _ExportedProgram()
