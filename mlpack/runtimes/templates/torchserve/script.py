"""Opens a TorchScript archive, which torch runs without the user's code, with the threads that were timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from v2.sessions import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from v2.description import Description
    from v2.sessions import Arrays, Session


def open_script(folder: Path, description: Description) -> Session:
    """A function from inputs to outputs, both by name. One caller at a time.

    Raises:
        ModelFailed: torch cannot read it.
    """
    import torch

    torch.set_num_threads(description.options.threads)
    try:
        script = torch.jit.load(str(folder / description.entry), map_location="cpu")
    except RuntimeError as error:
        raise ModelFailed(_last_line(error)) from error
    inputs = [tensor.name for tensor in description.inputs]
    outputs = [tensor.name for tensor in description.outputs]

    def run(given: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> Arrays:
        # A copy: what came in a request cannot be written, and torch wants to be able to.
        tensors = [torch.from_numpy(np.array(given[name], order="C")) for name in inputs]
        with torch.inference_mode():
            try:
                made = script(*tensors)
            except RuntimeError as error:
                raise ModelFailed(_last_line(error)) from error
        return {name: np.asarray(tensor.numpy()) for name, tensor in zip(outputs, made, strict=True)}

    return run


def _last_line(error: Exception) -> str:
    # Before it stands where in the archive, over many lines.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
