"""Tensors of torch in a safetensors file, in which one that has two names lies once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


def save_weights(state: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """Write tensors as safetensors. One tensor under two names is written once: `{other name: kept name}`."""
    from safetensors.torch import save_file

    kept: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}
    shared: dict[str, str] = {}
    for name, tensor in state.items():
        place = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
        )
        if tensor.numel() and place in names:
            shared[name] = names[place]
            continue
        names[place] = name
        # A clone, because views into one storage are refused by safetensors.
        kept[name] = tensor.detach().cpu().contiguous().clone()
    save_file(kept, path)
    return shared


def load_weights(path: Path, shared: Mapping[str, str]) -> dict[str, Tensor]:
    """What `save_weights` wrote: one tensor under each of its names."""
    from safetensors.torch import load_file

    kept: dict[str, Tensor] = load_file(path)
    return {**kept, **{name: kept[same] for name, same in shared.items()}}
