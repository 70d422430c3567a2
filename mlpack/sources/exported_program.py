"""A `.pt2` by torch.export.save: the safe, preferred form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.sources.taking import Archive

if TYPE_CHECKING:
    from mlpack.sources.source import Source

SOURCE: Source = Archive("exported_program", "model.pt2")
