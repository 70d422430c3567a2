"""A TorchScript archive by torch.jit.save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.sources.taking import Archive

if TYPE_CHECKING:
    from mlpack.sources.source import Source

SOURCE: Source = Archive("torchscript", "model.pt")
