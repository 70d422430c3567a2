"""What a stage of a torch model imports: known before it runs, so that one process can import it for all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlpack.core.loader import Loader
from mlpack.core.user_code import imported_by, module_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.model import Model
    from mlpack.core.user_code import Reference

# Not what the exporter alone imports: one stage of a run needs it, and a model that cannot be loaded none.
_TORCH = ("torch",)
# Large libraries that do nothing but define things as they are imported. Others may look at the machine, start
# threads, or read a variable that the user's code sets before.
_HARMLESS = ("torch", "torchaudio", "torchvision", "transformers", "timm")


def imports_of(model: Model | None) -> tuple[str, ...]:
    """What a stage imports that runs this model; nothing where it is no torch model."""
    if model is not None and model.format in {"aotinductor", "torchscript"}:
        return _TORCH
    if model is None or model.format != "torch":
        return ()
    loader = Loader.read(model.path)
    if loader.kind == "hf_folder":
        return with_architecture(model.path / (loader.archive or ""))
    return with_code(loader.code if loader.reference is not None else None)


def with_architecture(folder: Path) -> tuple[str, ...]:
    """Torch, transformers, and its module for the architecture in the folder's config.json."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"].replace("-", "_")
    return (*_TORCH, "transformers", f"transformers.models.{kind}.modeling_{kind}")


def with_code(reference: Reference | None) -> tuple[str, ...]:
    """Torch, and what the user's file names of large libraries."""
    file = None if reference is None else module_file(reference)
    named = () if file is None else imported_by(file)
    return (*_TORCH, *(name for name in named if name.partition(".")[0] in _HARMLESS and name not in _TORCH))
