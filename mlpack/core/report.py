"""Report: what was measured. Facts, no verdict."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mlpack.core.words import Frozen


class Report(Frozen):
    """Metrics and tables by name; per-sample arrays by the relative path of the file that holds them."""

    metrics: dict[str, Any] = Field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    files: tuple[str, ...] = ()
