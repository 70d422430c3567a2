"""Labels as they stand in raw data, names or numbers, to the numbers of the model's classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


def numbered(values: np.ndarray, classes: Sequence[str], where: str) -> np.ndarray:
    """The class numbers (int64) of labels; numbers of other kinds are given back as float32.

    Raises:
        DataError: a label that the model has no class for.
    """
    if values.dtype.kind in "US":
        return _by_name(values, list(classes), where)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    numbers = values.astype(np.int64)
    if classes and len(numbers):
        outside = numbers[(numbers < 0) | (numbers >= len(classes))]
        if len(outside):
            raise DataError(
                f"{where} has the label {outside[0]}, but the model has {len(classes)} classes (0 to "
                f"{len(classes) - 1})",
                "take such rows out, or number the classes as the model does",
            )
    return numbers


def _by_name(values: np.ndarray, classes: list[str], where: str) -> np.ndarray:
    number = {name: at for at, name in enumerate(classes)}
    found, inverse = np.unique(values, return_inverse=True)
    strangers = [str(name) for name in found if str(name) not in number]
    if strangers and all(name.lower() in {each.lower() for each in classes} for name in strangers):
        number = {name.lower(): at for name, at in number.items()}
        found = np.array([str(name).lower() for name in found])
    elif strangers:
        known = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")  # noqa: PLR2004
        raise DataError(
            f"{where} has the class {strangers[0]!r}, which the model does not have: it has {known or 'no names'}",
            "take such rows out, or set id2label in config.json to the names the data uses",
        )
    return np.array([number[str(name)] for name in found], dtype=np.int64)[inverse]
