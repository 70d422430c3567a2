"""Runtimes: one file per server. This table is the only place that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.table import Table

if TYPE_CHECKING:
    from mlpack.core.runtime import Runtime

RUNTIMES: Table[Runtime] = Table(
    "runtime",
    {
        "triton": "mlpack.runtimes.triton:RUNTIME",
        "fastapi": "mlpack.runtimes.fastapi:RUNTIME",
        "torchserve": "mlpack.runtimes.torchserve:RUNTIME",
    },
)
