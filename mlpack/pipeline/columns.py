"""Answers as tensors of the V2 inference protocol: the datatype of each column, and its values as that."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from .faults import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_KNOWN = {"label": "BYTES", "score": "FP32"}
_LARGEST = {"FP32": 3.4028234663852886e38, "INT64": 2**63 - 1}


def datatypes(columns: Iterable[str], answers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The datatype of each column, as kept answers show it; BYTES (texts, else JSON) where nothing narrower fits.

    It is settled once, from samples: one that followed each answer would change under a client's hands.
    """
    return {
        name: _KNOWN.get(name, "BYTES") if not answers else _datatype([each.get(name) for each in answers])
        for name in columns
    }


def packed(name: str, datatype: str, values: Sequence[Any]) -> list[Any]:
    """A column's values as JSON has them in a tensor of this datatype.

    Raises:
        PipelineError: a value is nothing that this datatype can hold.
    """
    made = []
    for row, value in enumerate(values):
        if datatype == "BYTES":
            made.append(value if isinstance(value, str) else _json(name, value, row))
        elif _fits(value, datatype):
            made.append(value)
        else:
            raise PipelineError(f"the answer {name!r} is {value!r}, which {datatype} cannot hold", row)
    return made


def _datatype(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP32" if kinds <= {int, float} else "BYTES"


def _fits(value: Any, datatype: str) -> bool:
    if datatype == "BOOL" or isinstance(value, bool):
        return datatype == "BOOL" and isinstance(value, bool)
    if not isinstance(value, int if datatype == "INT64" else int | float):
        return False
    return math.isfinite(value) and abs(value) <= _LARGEST[datatype]


def _json(name: str, value: Any, row: int) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PipelineError(f"the answer {name!r} cannot be written as JSON: {error}", row) from error
