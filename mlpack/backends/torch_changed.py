"""Keeps a module that was changed since it was loaded: pruned, distilled, or trained further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_loader import Flat, load_inner
from mlpack.backends.torch_modes import made_ready
from mlpack.backends.torch_surgery import surgery_of
from mlpack.core.filesystem import link_or_copy
from mlpack.core.loader import ENTRY, Changed, Loader
from mlpack.core.weights import save_weights
from mlpack.errors import ModelError, StageFailed

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.model import Model, TensorSpec

WEIGHTS = "changed.safetensors"
_ROWS = 2
_SIZE = 8
_CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def changeable(model: Model) -> Loader:
    """The loader of a model that gives a module.

    Raises:
        ModelError: it gives a graph, which cannot be changed; says why.
    """
    loader = Loader.read(model.path)
    if loader.unchangeable is not None:
        raise ModelError(
            f"there is no module that could be changed: {loader.unchangeable}",
            "hand in the module: file.py:function, a state dict with --factory, or a Hugging Face folder",
        )
    return loader


def save_changed(model: Model, module: torch.nn.Module, out: Path) -> Model:
    """Write `module`, which was loaded from `model` and then changed, as a Model folder of the same loader.

    `module` is the user's own (`Flat.inner`); it is put into inference mode. What was written is loaded again and
    held to it.

    Raises:
        ModelError: the model gives no module.
        StageFailed: what was changed cannot be written down, or what was written answers differently.
    """
    loader = changeable(model)
    module = made_ready(module.cpu(), lambda _: None, modes_count=False)
    # Its own weights are not asked for, where code makes the module without them.
    bare = loader.model_copy(update={"changed": None, "weights": None, "shared": {}})
    surgery = surgery_of(load_inner(model.path, bare), module)
    left = {ENTRY, loader.weights, loader.changed.weights if loader.changed else None}
    for file in model.files():
        relative = file.relative_to(model.path)
        if relative.as_posix() not in left:
            link_or_copy(file, out / relative)
    shared = save_weights(module.state_dict(), out / WEIGHTS)
    written = bare.model_copy(update={"changed": Changed(weights=WEIGHTS, shared=shared, surgery=surgery)})
    written.write(out)
    made = model.model_copy(update={"path": out})
    check_same(made, module, load_inner(out, written))
    return made


def check_same(model: Model, module: torch.nn.Module, again: torch.nn.Module) -> None:
    """Hold the module that was written as `model` to what is made of it `again`.

    Raises:
        StageFailed: it answers differently.
    """
    inputs, outputs = ([spec.name for spec in specs] for specs in (model.inputs, model.outputs))
    given = [_drawn(spec, model.largest) for spec in model.inputs]
    with torch.no_grad():
        one, other = (Flat(each, inputs, outputs)(*(tensor.clone() for tensor in given)) for each in (module, again))
    for name, here, there in zip(outputs, one, other, strict=True):
        if here.shape != there.shape or not torch.allclose(here, there, **_CLOSE, equal_nan=True):
            raise StageFailed(
                f"the module answers differently in output {name!r} once it is written and loaded again",
                "it keeps in plain Python what follows from its sizes or is drawn: keep that in numbers, parameters "
                "or buffers of the module",
            )


def _drawn(spec: TensorSpec, largest: dict[str, int]) -> torch.Tensor:
    """Normal floats; integers 0 and 1, the first of each row 1: in every table, and no mask that is 0 everywhere."""
    sizes = [
        dim if isinstance(dim, int) else _ROWS if at == 0 else min(_SIZE, largest.get(dim, _SIZE))
        for at, dim in enumerate(spec.dims)
    ]
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    drawn = torch.randint(0, 2, sizes, generator=generator)
    drawn.view(sizes[0] if sizes else 1, -1)[:, 0] = 1
    return drawn.to(dtype)
