"""Backends: one file per library. This table is the only place that lists them."""

from __future__ import annotations

from mlpack.core.backend import Backend
from mlpack.core.table import Table

BACKENDS: Table[Backend] = Table(
    "backend",
    {
        "torch": "mlpack.backends.torch:BACKEND",
        "onnxruntime": "mlpack.backends.onnxruntime:BACKEND",
        "openvino": "mlpack.backends.openvino:BACKEND",
    },
)
