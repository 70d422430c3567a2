"""Reads one tensor of a request: its datatype, its shape and its values must be those of the model's input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .binary import tensor_values
from .description import DATATYPES
from .faults import BadRequest

if TYPE_CHECKING:
    from .description import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


def read_tensor(given: dict[str, Any], tensor: Tensor, symbols: dict[str, tuple[int, str]]) -> Array:
    """The array in an input of a request. `symbols` has the size of each free dim so far, and whose it was.

    Raises:
        BadRequest: it is not one of this input.
    """
    if given.get("datatype") != tensor.datatype:
        raise BadRequest(f"input {tensor.name!r} must have datatype {tensor.datatype}")
    shape = _shape(given.get("shape"), tensor, symbols)
    data = given.get("data")
    if isinstance(data, memoryview):
        return tensor_values(data, tensor, shape)
    if not isinstance(data, list):
        raise BadRequest(f"input {tensor.name!r} must have its values in a list, 'data'")
    try:
        values = _exact(data, np.array(data), tensor)
    except (ValueError, OverflowError, RecursionError):
        raise BadRequest(f"the data of input {tensor.name!r} is ragged or not of numbers") from None
    count = math.prod(shape)
    if values.shape not in {(count,), shape}:
        raise BadRequest(
            f"the data of input {tensor.name!r} has shape {list(values.shape)}, "
            f"neither {list(shape)} nor {count} values in one list"
        )
    # Among numbers numpy makes numbers of true and false.
    if values.dtype.kind != "b" and bool in _types(data):
        raise BadRequest(f"the data of input {tensor.name!r} does not hold {tensor.datatype} values")
    return _cast(values, tensor).reshape(shape)


def _types(data: list[Any]) -> set[type]:
    """The types of all values of lists in lists."""
    types = set(map(type, data))
    return types.union(*(_types(each) for each in data if isinstance(each, list))) if list in types else types


def _exact(data: list[Any], values: Array, tensor: Tensor) -> Array:
    """Numbers as they came: beside a whole one from 2**63 on, numpy makes floats, or objects, of all of them."""
    dtype = DATATYPES[tensor.datatype]
    if dtype.kind == "f" and values.dtype.kind == "O" and _types(data) <= {int, float, list}:
        return np.array(data, np.float64)
    if dtype.kind not in "iu" or values.dtype.kind not in "fO" or not values.size:
        return values
    exact = np.array(data, dtype=object)
    if not all(type(each) is int for each in exact.flat):
        return values
    bounds = np.iinfo(dtype)
    if exact.min() < bounds.min or exact.max() > bounds.max:
        raise BadRequest(f"the data of input {tensor.name!r} has values that {tensor.datatype} cannot hold")
    return exact.astype(dtype)


def _shape(given: Any, tensor: Tensor, symbols: dict[str, tuple[int, str]]) -> tuple[int, ...]:
    expected = list(tensor.dims)
    # A bool is an int to Python, not to the protocol.
    if not isinstance(given, list) or any(type(dim) is not int or dim < 1 for dim in given):
        raise BadRequest(f"the shape of input {tensor.name!r} must be a list of whole numbers of at least 1")
    fits = len(given) == len(expected) and all(
        isinstance(dim, str) or size == dim for size, dim in zip(given, expected, strict=True)
    )
    if not fits:
        raise BadRequest(f"input {tensor.name!r} has shape {given}, expected {_shown(tensor.dims)}")
    for size, dim in zip(given, expected, strict=True):
        if isinstance(dim, str):
            known, owner = symbols.setdefault(dim, (size, tensor.name))
            if known != size:
                raise BadRequest(f"{dim!r} is {known} in input {owner!r} but {size} in input {tensor.name!r}")
    return tuple(given)


def _cast(values: Array, tensor: Tensor) -> Array:
    dtype = DATATYPES[tensor.datatype]
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[dtype.kind]
    if values.dtype.kind not in kinds:
        raise BadRequest(f"the data of input {tensor.name!r} does not hold {tensor.datatype} values")
    if dtype.kind == "b":
        return values
    number: type = float if dtype.kind == "f" else int
    bounds = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    if not number(bounds.min) <= number(values.min()) <= number(values.max()) <= number(bounds.max):
        raise BadRequest(f"the data of input {tensor.name!r} has values that {tensor.datatype} cannot hold")
    return values.astype(dtype)


def _shown(dims: tuple[int | str, ...]) -> str:
    return f"[{', '.join(str(dim) for dim in dims)}]"
