"""The range table: what calibration found, as it stands in the report of quantize and can be given to another run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, model_validator

from mlpack.core.report import Report
from mlpack.core.words import Frozen
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

TABLE = "found_ranges"
_HINT = "give the reports/quantize.json of an artifact with static int8"


class TensorRange(Frozen):
    """The lowest and highest value that a tensor's integers are to hold; how many seen values stood for infinity."""

    tensor: str
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    infinite: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> TensorRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    def symmetric_within(self, factor: float) -> bool:
        """Whether it has both signs, and the symmetric range around it is at most so many times as wide."""
        return self.low < 0 < self.high and 2 * max(-self.low, self.high) <= factor * (self.high - self.low)


class RangeTable(Frozen):
    """Ranges of activations, and how they were found: the method, the number of samples, for which operators.

    `weights` tells whose ranges they are: a digest of the graph's weights. Empty in a table that was written by hand.
    """

    method: str
    samples: int
    operators: str
    weights: str = ""
    ranges: tuple[TensorRange, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """The table of a report."""
        return [each.model_dump() for each in self.ranges]

    def said(self) -> dict[str, Any]:
        """The metrics of a report."""
        return {
            "calibration_method": self.method,
            "calibration_samples": self.samples,
            "calibration_operators": self.operators,
            "calibration_weights": self.weights,
        }


def digest_of_weights(graph: onnx.ModelProto) -> str:
    """What tells one set of weights from another: sha256 over all matrices and filters, whatever their names."""
    from onnx import numpy_helper

    arrays = (numpy_helper.to_array(each) for each in graph.graph.initializer if len(each.dims) > 1)
    each = sorted(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def read_ranges(path: Path) -> RangeTable:
    """The table in a report of quantize, or in a file like it: `{"tables": {"found_ranges": [{tensor, low, high}]}}`.

    Raises:
        UsageError: it cannot be read, or has no ranges.
    """
    try:
        table = ranges_of(Report.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"ranges {path}: {error.strerror}", _HINT) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"ranges {path}: {where or 'a row'}: {first['msg']}", _HINT) from error
    if table is None:
        raise UsageError(f"ranges {path}: it has no {TABLE}", _HINT)
    return table


def ranges_of(report: Report) -> RangeTable | None:
    """The table in a report; None where nothing was calibrated.

    Raises:
        ValidationError: its rows are no ranges.
    """
    rows = report.tables.get(TABLE)
    if not rows:
        return None
    return RangeTable(
        method=str(report.metrics.get("calibration_method", "given")),
        samples=int(report.metrics.get("calibration_samples", 0)),
        operators=str(report.metrics.get("calibration_operators", "all")),
        weights=str(report.metrics.get("calibration_weights", "")),
        ranges=tuple(TensorRange.model_validate(row) for row in rows),
    )
