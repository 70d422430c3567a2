"""Baseline: what a gate compares with when the baseline's artifact is not at hand. A few kilobytes, for git."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

SCHEMA = 1
_BITS = "bits"


class Packed(Frozen):
    """One array: `bits` for zeros and ones, else raw little-endian values; zlib, then base64."""

    dtype: str
    shape: tuple[int, ...]
    packed: Literal["bits", "values"]
    data: str


class Baseline(Frozen):
    """Per-sample results of one artifact on the rows that it was confirmed on, and the fingerprint of those rows."""

    schema_: int = Field(default=SCHEMA, alias="mlpack_baseline")
    name: str
    version: int
    digest: str
    metric: str
    output: str | None
    metric_sha256: str | None = Field(default=None, description="of the file of a user's own metric")
    part: str = Field(description="fingerprint of the rows, by content")
    value: float | None
    size_bytes: int
    made: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="how it was made: values by part and name; empty in earlier versions' files"
    )
    kept: dict[str, Packed]

    def arrays(self) -> dict[str, np.ndarray]:
        """What was kept of each sample.

        Raises:
            ValueError: the file was damaged.
        """
        return {name: unpack(each) for name, each in self.kept.items()}


def pack(arrays: Mapping[str, np.ndarray]) -> dict[str, Packed]:
    """Arrays as text; integers in the smallest type that holds them."""
    return {name: _pack(array) for name, array in arrays.items()}


def _pack(array: np.ndarray) -> Packed:
    import numpy as np

    shape = tuple(array.shape)
    if array.dtype.kind in "bui" and array.size and ((array == 0) | (array == 1)).all():
        raw, kind = np.packbits(array.astype(np.uint8).ravel()).tobytes(), _BITS
    else:
        if array.dtype.kind in "ui" and array.size:
            small = np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))
            array = array.astype(small) if small.kind in "ui" else array
        raw, kind = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes(), "values"
    text = base64.b64encode(zlib.compress(raw, 9)).decode()
    return Packed(dtype=array.dtype.name, shape=shape, packed="bits" if kind == _BITS else "values", data=text)


def unpack(packed: Packed) -> np.ndarray:
    """The array that `pack` packed.

    Raises:
        ValueError: the text is damaged.
    """
    import math

    import numpy as np

    try:
        raw = zlib.decompress(base64.b64decode(packed.data, validate=True))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    count = math.prod(packed.shape)
    if packed.packed == _BITS:
        values = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count)
    else:
        values = np.frombuffer(raw, dtype=np.dtype(packed.dtype).newbyteorder("<"))
    return values.astype(packed.dtype).reshape(packed.shape)
