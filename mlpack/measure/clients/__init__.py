"""Clients of running servers, one file per protocol. The table's names are the schemes of `--server`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlpack.measure.clients.client import Client

__all__ = ["CLIENTS"]

CLIENTS: Table[Callable[[str, float], Client]] = Table(
    "protocol",
    {
        "http": "mlpack.measure.clients.v2_http:V2Http",
        "grpc": "mlpack.measure.clients.v2_grpc:V2Grpc",
    },
    extra="server",
)
