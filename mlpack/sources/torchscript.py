"""A TorchScript archive by torch.jit.save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.loader import Loader
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Detected, Source


class _TorchScript:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Take the archive over as it is."""
        del spec
        copy_in(detected.file, out / "model.pt")
        Loader(kind="torchscript", sha256=detected.sha256, archive="model.pt").write(out)


SOURCE: Source = _TorchScript()
