"""What was learnt of a library on a machine: the price of each kind of work, from the catalogue."""

from __future__ import annotations

import functools
from importlib import resources

from pydantic import Field

from mlpack.core.words import Frozen


class Learnt(Frozen):
    """Prices of one library on one unit of a CPU, in one kind of numerics, with so many threads.

    `benchmarks/prediction.py` measures and writes them.
    """

    backend: str
    numerics: str
    method: str | None = Field(default=None, description="how a graph got these numerics; none: it came in them")
    unit: str = Field(description="the instruction set that computes these numerics fastest")
    threads: int = Field(ge=1)
    efficiency: dict[str, float] = Field(description="share of the unit's peak rate, by kind of operator")
    nanoseconds: dict[str, float] = Field(description="of one element, weight, node, step or call")
    models: int = Field(ge=2, description="that it was learnt from")
    median_error: float = Field(ge=0, description="relative, of models that were left out of the learning, one by one")
    most_error: float = Field(ge=0, description="the largest of those errors")
    cpu: str = Field(min_length=1)
    version: str = Field(min_length=1, description="of the backend")
    date: str = Field(min_length=1, description="day on which it was measured, as YYYY-MM-DD")


@functools.cache
def learnt() -> tuple[Learnt, ...]:
    """All that is in the catalogue."""
    import yaml

    text = resources.files("mlpack.core").joinpath("catalogue", "efficiency.yaml").read_text(encoding="utf-8")
    return tuple(Learnt.model_validate(row) for row in yaml.safe_load(text) or ())
