"""Target: hardware as data, read from the catalogue that ships with the package."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlpack.core.words import Frozen


class Target(Frozen):
    """One row of the catalogue, or this machine.

    Memory in GB (10⁹ bytes), bandwidth in GB/s, peak rates in dense TFLOP/s (TOP/s for integers) by numerics.
    `sparse_peak` are the rates with 2:4 sparsity in the weights, `cache_mib` the last level of cache in MiB.
    """

    name: str
    title: str
    kind: Literal["cpu", "cuda"]
    here: bool = Field(default=False, description="whether this machine is that target")
    compute_capability: str | None = None
    sms: int | None = Field(default=None, gt=0, description="streaming multiprocessors")
    isa: tuple[str, ...] = ()
    cores: int | None = Field(default=None, gt=0, description="cores that a socket has at most")
    numerics: tuple[str, ...] = Field(description="among fp32 tf32 fp16 bf16 int8 int4 fp8 fp4")
    rules: str = Field(description="the rule set that Q/DQ graphs for this target follow")
    memory_gb: float | None = Field(default=None, gt=0)
    bandwidth_gb_s: float | None = Field(default=None, gt=0)
    cache_mib: float | None = Field(default=None, gt=0)
    multiple: int = Field(default=8, gt=0, description="channels that its kernels take at once")
    peak: dict[str, float] = Field(default_factory=dict)
    sparse_peak: dict[str, float] = Field(default_factory=dict)
    mig: tuple[str, ...] = Field(default=(), description="profiles that the card can be divided into")
    note: str | None = Field(default=None, description="what a user of this target has to know")
    source: str = Field(min_length=1, description="URL that the numbers are from")
    date: str = Field(min_length=1, description="day on which they were taken, as YYYY-MM-DD")
