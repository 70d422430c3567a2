"""Weights without code: a state dict or checkpoint by torch.save, or a safetensors file, plus a factory."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mlpack.core.loader import Loader
from mlpack.core.weights import save_weights
from mlpack.errors import ModelError
from mlpack.sources.safetensors_header import read_safetensors_header
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from mlpack.core.recipe import SourceSpec
    from mlpack.core.user_code import Reference
    from mlpack.sources.source import Detected, Source

WEIGHTS = "weights.safetensors"
_KEYS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 5
# What torch.load was seen to raise on damaged bytes.
_DAMAGED = (
    RuntimeError, EOFError, ValueError, LookupError, AssertionError, AttributeError, TypeError, OSError, MemoryError,
    OverflowError, pickle.UnpicklingError,
)  # fmt: skip


def refuse_without_factory(found: Detected, given: str, content: Any = None) -> NoReturn:
    """A help page: how many tensors, a few names and shapes, and the lines to paste.

    Raises:
        ModelError: always.
    """
    shapes, notes = _shapes(found, content)
    lines = [f"  {name}  {list(shape)}" for name, shape in list(shapes.items())[:_SHOWN]]
    if len(shapes) > _SHOWN:
        lines.append(f"  ... and {len(shapes) - _SHOWN} more")
    raise ModelError(
        f"{given} holds weights without the code that uses them: {len(shapes)} tensors"
        + (f" ({'; '.join(notes)})" if notes else "")
        + "\n"
        + "\n".join(lines)
        + "\nWrite a file model.py beside it with a function that makes the module they belong to:\n"
        "  from my_package import MyModel\n"
        "  def network():\n"
        "      return MyModel()      # the arguments it was trained with; mlpack fills in the weights",
        f"mlpack optimize {given} --factory model.py:network",
    )


def _shapes(found: Detected, content: Any) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    if found.container == "safetensors":
        header = read_safetensors_header(found.file)
        return {name: tuple(tensor["shape"]) for name, tensor in header.items()}, ()
    if content is None:
        content = _load(found, "meta")
    state, notes = unwrap(content, str(found.file))
    return {name: tuple(tensor.shape) for name, tensor in state.items()}, notes


class _StateDict:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Unwrap the weights, write them as safetensors and keep a copy of the factory's file."""
        del spec
        write_folder(detected, _load(detected, "cpu"), out)


def write_folder(detected: Detected, content: Any, out: Path) -> None:
    """Write weights, the factory's file and `loader.json`.

    Raises:
        ModelError: the content is no state dict.
    """
    state, notes = unwrap(content, str(detected.path))
    shared = save_weights(state, out / WEIGHTS)
    Loader(
        kind="state_dict",
        sha256=detected.sha256,
        weights=WEIGHTS,
        shared=shared,
        unwrapped=notes,
        **copy_of_factory(detected.code, out),
    ).write(out)


def copy_of_factory(factory: Reference, out: Path) -> dict[str, Any]:
    """Copy the user's file, if it is one; the fields of `Loader` that say where the factory is."""
    copied = None
    if factory.file is not None:
        copied = "factory.py"
        copy_in(factory.file, out / copied)
    return {
        "reference": factory.text,
        "factory_file": copied,
        "original_file": None if factory.file is None else str(factory.file),
        "folder": str(factory.folder),
    }


def _load(found: Detected, device: str) -> Any:
    """The content, read without running code; on the meta device nothing but names and shapes."""
    import torch

    if found.container == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(found.file)
        except SafetensorError as error:
            raise ModelError(f"safetensors cannot read {found.file}: {error}", "copy or download it again") from error
    try:
        with _plain_numpy_allowed():
            return torch.load(found.file, map_location=device, weights_only=True, mmap=found.container == "torch_zip")
    except _DAMAGED as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"torch cannot read {found.file}: {said}", "copy, download or save it again") from error


@contextlib.contextmanager
def _plain_numpy_allowed() -> Iterator[None]:
    """Numbers by numpy in a checkpoint (a best score, say) run no code."""
    import torch

    scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined] # noqa: SLF001 - what numpy pickles name
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdS"}
    with torch.serialization.safe_globals([scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]):
        yield


def unwrap(content: Any, given: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict inside a checkpoint, and what was taken off, in words.

    Raises:
        ModelError: there is none inside.
    """
    import torch

    notes: list[str] = []
    while isinstance(content, Mapping) and not _is_state(content):
        key = next((key for key in _KEYS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        others = [str(other) for other in content if other != key]
        notes.append(f"took {key!r} out of a checkpoint" + (f" (left {', '.join(others[:4])})" if others else ""))
        content = content[key]
    if not _is_state(content):
        what = f"a dict with {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise ModelError(
            f"{given} holds no state dict but {what or type(content).__name__}",
            "torch.save(model.state_dict(), 'weights.pt')",
        )
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    while prefix := next((each for each in _PREFIXES if all(name.startswith(each) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        notes.append(f"took the prefix {prefix!r} off the names")
    return state, tuple(notes)


def _is_state(content: Any) -> bool:
    import torch

    return (
        isinstance(content, Mapping)
        and any(isinstance(value, torch.Tensor) for value in content.values())
        and not any(isinstance(value, Mapping) for value in content.values())
    )


SOURCE: Source = _StateDict()
