"""Makes the module of a Hugging Face folder: transformers builds it, and its attention is the one that exports."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mlpack.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_SHOWN = 4


def load_hf(folder: Path) -> torch.nn.Module:
    """The module that config.json names, in float32, all its weights from the folder.

    Plain attention exports to a quarter fewer ONNX nodes than scaled_dot_product_attention (no NaN guards).

    Raises:
        ModelError: this transformers does not know the architecture, or weights are missing.
    """
    known = architecture(folder)
    told = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    with reading_folder():
        module, found = with_plain_attention(partial(known.from_pretrained, str(folder), **told))
    refuse_missing(sorted(found["missing_keys"]), known.__name__)
    return without_cache(module)


def architecture(folder: Path) -> Any:
    """The class of transformers that config.json names.

    Raises:
        ModelError: this transformers does not know it.
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
    return known


def with_plain_attention(make: Callable[..., Any]) -> Any:
    """What `make` gives for plain attention; without that word where the architecture has no other kind."""
    try:
        return make(attn_implementation="eager")
    except ValueError as error:
        if "attn_implementation" not in str(error) and "attention" not in str(error):
            raise
        return make()


@contextmanager
def reading_folder() -> Iterator[None]:
    """A block in which transformers reads the folder: whatever it raises, the folder is unusable.

    Raises:
        ModelError: with its reason in one line.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"transformers cannot read this folder: {reason}", "save it again: model.save_pretrained(FOLDER)"
        ) from error


def refuse_missing(missing: Sequence[str], named: str) -> None:
    """Whether the folder has all weights.

    Raises:
        ModelError: which it lacks.
    """
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ModelError(
            f"the folder lacks weights that {named} has: {', '.join(missing[:_SHOWN])}{more}",
            "it would answer with random weights: fine-tune it and save it again, or correct `architectures`",
        )


def without_cache(module: Any) -> torch.nn.Module:
    """The module, which keeps nothing between calls: a cache is no tensor, and a loop that would use it is not made."""
    module.config.use_cache = False
    made: torch.nn.Module = module
    return made
