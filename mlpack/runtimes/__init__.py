"""Runtimes: one file per server. This table is the only place that lists them."""

from __future__ import annotations

from mlpack.core.runtime import Runtime
from mlpack.core.table import Table

RUNTIMES: Table[Runtime] = Table(
    "runtime",
    {
        "triton": "mlpack.runtimes.triton:RUNTIME",
        "fastapi": "mlpack.runtimes.fastapi:RUNTIME",
    },
)
