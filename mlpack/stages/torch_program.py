"""What stages share that make files of torch's own: the module in the wanted numerics, and the check of its answers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mlpack.backends.torch_loader import load_module
from mlpack.backends.torch_runner import REFUSALS, one_line, to_tensor
from mlpack.core.model import Quantization
from mlpack.errors import StageFailed
from mlpack.stages import samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.stages.torch_numerics import Numerics

ROWS = 64
"""Rows that a file of torch's own is held to the original on."""


class Program:
    """A torch model to be made a file of: its module, tensors to call it with, and the rows to verify it on."""

    def __init__(self, model: Model, job: Job, numerics: Numerics) -> None:
        """Load the module.

        Raises:
            ModelError: the user's code raises.
            StageFailed: the module's weights stay on the disk.
        """
        if model.on_disk:
            raise StageFailed(
                "a file of torch's own holds all weights, and these are too many for the memory",
                "--int4 with --backend onnxruntime takes one after the other",
            )
        self.rows, self.rows_are = samples.rows(model, job, "calibration", ROWS)
        self._model, self._numerics = model, numerics
        flat = load_module(model)
        self.module: torch.nn.Module = _InBf16(flat) if numerics == "bf16" else flat
        # Two rows at least: what is traced on one row is valid for one alone.
        count = min(4, max(2, len(next(iter(self.rows.values()))))) if model.dynamic_batch else None
        self.arguments = tuple(_argument(self.rows[spec.name], count) for spec in model.inputs)

    def dynamic_shapes(self) -> tuple[dict[int, torch.export.Dim] | None, ...]:
        """The dims that are names, as torch.export takes them; dims of one name share one symbol."""
        names = dict.fromkeys(dim for spec in self._model.inputs for dim in spec.dims if isinstance(dim, str))
        largest = self._model.largest
        dims = {
            name: torch.export.Dim(_symbol(name, at), min=1, max=largest.get(name)) for at, name in enumerate(names)
        }
        return tuple(
            {axis: dims[dim] for axis, dim in enumerate(spec.dims) if isinstance(dim, str)} or None
            for spec in self._model.inputs
        )

    def made(self, job: Job, entry: str, model_format: Format) -> Model:
        """The model that lies in the job's folder now."""
        changed = self._share() if self._numerics == "bf16" else 1.0
        if changed == 0:
            raise StageFailed("bf16 changed no operation of this model", "leave --bf16 out")
        cast = Quantization(rules="autocast", method="cast") if self._numerics == "bf16" else None
        return self._model.model_copy(
            update={
                "path": job.out,
                "entry": entry,
                "format": model_format,
                "backend": None,
                # A module that computes in bf16 itself stays what it is.
                "numerics": "bf16" if cast else self._model.numerics,
                "numerics_share": round(changed, 4),
                "quantization": cast,
            }
        )

    def _share(self) -> float:
        """The share of the multiply-accumulates that autocast makes bf16, counted in one eager run."""
        counted = _Multiplies()
        with torch.no_grad(), counted:
            self.module(*self.arguments)
        return counted.narrow / counted.all if counted.all else 0.0


class _InBf16(torch.nn.Module):  # type: ignore[misc] # torch is opaque to mypy here
    """The module under autocast: products and convolutions in bf16, what needs range in float32; float32 comes out."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tensors in the order of the module's inputs; gives tensors in the order of its outputs."""
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            made = self.module(*tensors)
        return tuple(each.float() if each.dtype is torch.bfloat16 else each for each in made)


class _Multiplies(TorchDispatchMode):  # type: ignore[misc] # likewise
    """Counts the floating-point operations of products and convolutions, and those of them in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.all = 0
        self.narrow = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            found = count(*args, **(kwargs or {}), out_val=made)
            self.all += found
            self.narrow += found * any(isinstance(each, torch.Tensor) and each.dtype is torch.bfloat16 for each in args)
        return made


@contextlib.contextmanager
def refusing(verb: str) -> Iterator[None]:
    """A block in which torch traces or compiles: what it raises is that it refuses this model.

    Raises:
        StageFailed: with torch's reason in one line.
    """
    try:
        yield
    except (*REFUSALS, AttributeError, NotImplementedError) as error:
        raise StageFailed(
            f"torch cannot {verb} this model: {type(error).__name__}: {one_line(error)}",
            "control flow that depends on values has to become tensor operations (torch.where, torch.cond); "
            "--backend onnxruntime exports in another way",
        ) from error


def _argument(array: np.ndarray, count: int | None) -> torch.Tensor:
    import numpy as np

    return to_tensor(array if count is None else np.resize(array, (count, *array.shape[1:])))


def _symbol(name: str, at: int) -> str:
    """The dim's name where it is one in Python, which torch's symbols have to be."""
    return name if name.isidentifier() else f"dim{at}"
