"""Makes the module of a Hugging Face folder: transformers builds it, and its attention is the one that exports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from mlpack.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 4


def load_hf(folder: Path) -> torch.nn.Module:
    """The module that config.json names, in float32, all its weights from the folder.

    Plain attention exports to a quarter fewer ONNX nodes than scaled_dot_product_attention (no NaN guards).

    Raises:
        ModelError: this transformers does not know the architecture, or weights are missing.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = next(iter(config.get("architectures") or ()), None)
    known: Any = getattr(transformers, named, None) if named else transformers.AutoModel
    if known is None:
        raise ModelError(
            f"transformers {transformers.__version__} knows no architecture {named!r}", "pip install -U transformers"
        )
    told = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        try:
            module, found = known.from_pretrained(str(folder), attn_implementation="eager", **told)
        except ValueError as error:
            if "attn_implementation" not in str(error) and "attention" not in str(error):
                raise
            module, found = known.from_pretrained(str(folder), **told)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"transformers cannot read this folder: {reason}", "save it again: model.save_pretrained(FOLDER)"
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ModelError(
            f"the folder lacks weights that {named or type(module).__name__} has: {', '.join(missing[:_SHOWN])}{more}",
            "it would answer with random weights: fine-tune it and save it again, or correct `architectures`",
        )
    made: torch.nn.Module = module
    return made
