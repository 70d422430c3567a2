"""Backends: one file per library, `mlpack/backends/NAME.py`. This table is the only place that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlpack.core.backend import Backend
from mlpack.core.model import Format
from mlpack.core.table import Table

if TYPE_CHECKING:
    from mlpack.core.model import Model

# The formats that each runs: kept here as well as in its file, so that asking loads no library.
_FORMATS: dict[str, tuple[Format, ...]] = {
    "torch": ("torch",),
    "onnxruntime": ("onnx",),
    "openvino": ("onnx",),
    "torch_compile": ("torch",),
    "torch_cuda_graph": ("torch",),
    "torch_tensorrt": ("torch",),
    "aotinductor": ("aotinductor",),
    "torchscript": ("torchscript",),
    "tensorrt": ("tensorrt",),
    "litert": ("litert",),
}

ON_CUDA = {"torch_cuda_graph", "torch_tensorrt", "tensorrt"}
"""What runs on NVIDIA devices alone."""

BACKENDS: Table[Backend] = Table("backend", {name: f"mlpack.backends.{name}:BACKEND" for name in _FORMATS})


def runs(model_format: Format, kind: Literal["cpu", "cuda"] | None = None) -> tuple[str, ...]:
    """The names of the backends that run models of this format; with `kind` only those that may on such a target."""
    left_out = ON_CUDA if kind == "cpu" else set()
    return tuple(name for name, formats in _FORMATS.items() if model_format in formats and name not in left_out)


def able(model: Model) -> tuple[str, ...]:
    """The names of the backends that run this model: those of its format that have its operators."""
    return tuple(name for name in runs(model.format) if model.only in {None, name})
