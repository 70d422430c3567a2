"""The module that learns: the one that the stage is given, or a smaller one of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mlpack.backends.torch_changed import check_same
from mlpack.backends.torch_loader import Flat, load_inner, load_module
from mlpack.core.loader import ENTRY, Loader
from mlpack.core.recipe import SourceSpec
from mlpack.core.weights import save_weights
from mlpack.sources import SOURCES
from mlpack.sources.detect import detect

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlpack.core.model import Model
    from mlpack.core.stage import Job

_KIND = "factory"
_MATRIX = 2


def given(model: Model, original: Model) -> Flat:
    """The module of this model, in which what a stage before set to zero stays zero."""
    learner = load_module(model)
    before = {} if Loader.read(original.path).unchangeable else dict(load_module(original).named_parameters())
    for name, weight in learner.named_parameters():
        had = before.get(name)
        gone = weight.detach() == 0 if had is None or had.shape != weight.shape else (weight == 0) & (had != 0)
        if weight.ndim >= _MATRIX and weight.requires_grad and bool(gone.any()):
            # Without a gradient AdamW leaves a zero what it is.
            weight.register_hook(_masked(~gone))
    return learner


def _masked(left: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def masked(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * left.to(gradient.device)

    return masked


def own(reference: str, job: Job) -> Flat:
    """The user's module, with the inputs and outputs of the original; what makes it again is in `job.out` now.

    Raises:
        ModelError: the function raises, or gives no module.
    """
    assert job.baseline is not None
    spec = SourceSpec(model=reference)
    found = detect(spec)
    # Weights that the function draws are those of the seed.
    torch.manual_seed(job.seed)
    SOURCES[_KIND].write(found, spec, job.out)
    loader = Loader.read(job.out)
    inner = load_inner(job.out, loader)
    inputs, outputs = ([spec.name for spec in specs] for specs in (job.baseline.inputs, job.baseline.outputs))
    loader.model_copy(update={"inputs": tuple(inputs), "outputs": tuple(outputs)}).write(job.out)
    return Flat(inner, inputs, outputs)


def write_own(inner: torch.nn.Module, job: Job) -> Model:
    """The user's module with the weights that it has now, as a model that stands in for the original.

    Raises:
        StageFailed: what was written answers differently.
    """
    assert job.baseline is not None
    loader = Loader.read(job.out)
    shared = save_weights(inner.cpu().state_dict(), job.out / (loader.weights or ""))
    written = loader.model_copy(update={"shared": shared})
    written.write(job.out)
    mine = {"path": job.out, "entry": ENTRY, "numerics": "fp32", "on_disk": False}
    made = job.baseline.model_copy(update=mine)
    check_same(made, inner, load_inner(job.out, written))
    return made
