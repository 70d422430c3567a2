"""The user's own function before or after the model: `file.py:function`, carried along as a file."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import PipelineError
from .image import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class PythonPreprocess:
    """One raw sample at a time: a PIL image, a text, or a dict of texts where a sample has several fields.

    The function gives the model's one input as an array, or a dict of arrays by input name; every sample's of one
    shape and dtype, as `inputs` records them: {name: [dtype, dim, dim, …]}.
    """

    def __init__(
        self,
        folder: Path,
        *,
        file: str,
        function: str,
        inputs: Mapping[str, Sequence[Any]],
        fields: Sequence[str] = ("text",),
        media: str = "text",
    ) -> None:
        self._function = _loaded(folder, file, function)
        self.fields = tuple(fields)
        self.media = media
        self.inputs = tuple((name, str(spec[0]), ("batch", *spec[1:])) for name, spec in inputs.items())

    def __call__(self, raw: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Arrays by input name."""
        rows = zip(*(raw[name] for name in self.fields), strict=True)
        made = [self._one(values, row) for row, values in enumerate(rows)]
        return {name: np.stack([each[name] for each in made]) for name, _, _ in self.inputs}

    def lengths(self, raw: Mapping[str, Sequence[Any]]) -> None:
        """All samples come out in one size."""
        del raw

    def _one(self, values: tuple[Any, ...], row: int) -> dict[str, np.ndarray]:
        try:
            given = tuple(decode(each) for each in values) if self.media == "image" else values
        except PipelineError as error:
            raise PipelineError(error.message, row) from error
        try:
            found = self._function(given[0] if len(given) == 1 else dict(zip(self.fields, given, strict=True)))
        except Exception as error:  # the user's code raises what it likes
            raise PipelineError(f"the preprocess function raised {type(error).__name__}: {error}", row) from error
        arrays = found if isinstance(found, dict) else {self.inputs[0][0]: found}
        made = {}
        for name, dtype, dims in self.inputs:
            if name not in arrays:
                raise PipelineError(f"the preprocess function gave no {name!r}", row)
            array = np.asarray(arrays[name])
            if array.dtype.name != dtype or array.shape != dims[1:]:
                raise PipelineError(
                    f"the preprocess function gave {name!r} as {array.dtype.name}{list(array.shape)}, "
                    f"not {dtype}{list(dims[1:])}", row
                )  # fmt: skip
            made[name] = array
        return made


class PythonPostprocess:
    """`function(outputs)` of one sample's arrays gives a dict of what to write: the `columns`."""

    def __init__(self, folder: Path, *, file: str, function: str, columns: Sequence[str]) -> None:
        self._function = _loaded(folder, file, function)
        self.columns = tuple(columns)

    def __call__(self, outputs: Mapping[str, np.ndarray], raw: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """A list per column."""
        del raw
        made: dict[str, list[Any]] = {name: [] for name in self.columns}
        for row in range(len(next(iter(outputs.values())))):
            try:
                found = self._function({name: array[row] for name, array in outputs.items()})
                for name, column in made.items():
                    value = found[name]
                    column.append(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
            except Exception as error:  # the user's code raises what it likes
                raise PipelineError(f"the postprocess function raised {type(error).__name__}: {error}", row) from error
        return made


def _loaded(folder: Path, file: str, function: str) -> Callable[..., Any]:
    path = folder / file
    spec = importlib.util.spec_from_file_location(f"pipeline_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PipelineError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code raises what it likes
        raise PipelineError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise PipelineError(f"{path} has no function {function!r}")
    return found  # type: ignore[no-any-return]
