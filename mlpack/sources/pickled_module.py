"""A pickled nn.Module: refused with what its pickle would import, or copied and flagged when allowed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlpack.core.loader import Loader
from mlpack.core.user_code import Reference, running
from mlpack.errors import ModelError
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Detected, Source

_LISTED = 12
ARCHIVE = "pickled.pt"


def refuse(found: Detected, given: str) -> NoReturn:
    """Say what the pickle would import and how to get rid of it.

    Raises:
        ModelError: always.
    """
    ordered = [*found.suspicious, *(name for name in found.imports if name not in found.suspicious)]
    lines = [f"  {name}{'   <-- can run any code' if name in found.suspicious else ''}" for name in ordered[:_LISTED]]
    if len(ordered) > _LISTED:
        lines.append(f"  ... and {len(ordered) - _LISTED} more")
    if not lines:
        lines.append("  (its opcodes cannot be followed, which honest files do not do)")
    raise ModelError(
        f"{given} is a pickled Python object: loading it runs code. It would import\n"
        + "\n".join(lines)
        + "\nWhere you trust it, turn it into a .pt2 with three lines:\n"
        f'  model = torch.load("{given}", weights_only=False).eval()\n'
        "  program = torch.export.export(model, example_inputs)   # a tuple of tensors\n"
        '  torch.export.save(program, "model.pt2")',
        "if you trust it as it is: --allow-pickle",
    )


class _PickledModule:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Copy the pickle and flag it; an allowed checkpoint with a factory becomes a state dict."""
        import torch

        from mlpack.sources import state_dict

        path = detected.file
        with running(Reference(str(path), "", Path.cwd(), file=path), str(path), ModelError, _HINT):
            content = torch.load(path, map_location="cpu", weights_only=False)
        if not isinstance(content, torch.nn.Module):
            if detected.factory is None:
                state_dict.refuse_without_factory(detected, spec.model, content)
            state_dict.write_folder(detected, content, out)
            return
        if detected.factory is not None:
            raise ModelError(f"{spec.model} is a whole pickled module: it needs no factory", "leave --factory out")
        copy_in(path, out / ARCHIVE)
        Loader(
            kind="pickled_module",
            sha256=detected.sha256,
            archive=ARCHIVE,
            pickled=True,
            folder=str(Path.cwd()),
        ).write(out)


_HINT = "run from the folder of the code that it was saved with, or save its state_dict() and give --factory"
SOURCE: Source = _PickledModule()
