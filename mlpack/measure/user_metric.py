"""Metrics that a user wrote: `file.py:function(outputs, labels)`, loaded, called, their errors shown."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlpack.errors import DataError, MlpackError, unknown
from mlpack.measure.scores import per_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_OUTPUT = "output:"
_HINT = "fix the function; it gets (outputs: dict[str, ndarray], labels)"


def is_reference(name: str) -> bool:
    """Whether a metric's name points into a file rather than into the table."""
    return ".py:" in name


def user_code_digest(reference: str) -> str:
    """Sha256 of the whole named file: part of a cache key; what it imports is not followed."""
    return hashlib.sha256(_file(reference)[0].read_bytes()).hexdigest()


@dataclass
class UserFunction:
    """A loaded function and what is known of it: whether it scores samples or the set it is given.

    An array of n scores is kept as such. One float means that the function needs the whole set: then
    outputs and labels are kept, and it is not called again before `reduce`. A function with an attribute
    `reduce` returns rows [n, ...], and `reduce(rows)` is the metric.
    """

    path: Path
    function: Callable[..., Any]
    returns: Literal["unknown", "scores", "set"] = "unknown"
    _postponed: DataError | None = field(default=None, repr=False)

    @property
    def _title(self) -> str:
        return f"{getattr(self.function, '__name__', 'metric')} of {self.path.name}"

    @property
    def higher_is_better(self) -> bool:
        """True unless the function carries `higher_is_better = False`."""
        return bool(getattr(self.function, "higher_is_better", True))

    def keep(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> dict[str, np.ndarray]:
        """Scores, rows, or the outputs and labels themselves; first axis samples.

        A ValueError or ArithmeticError is postponed to `reduce` until the function is known to score
        samples: one that needs the whole set (an AUC) may not bear a batch with a single class.
        """
        if self.returns != "set":
            try:
                result = self._call(outputs, labels)
            except DataError as error:
                if self.returns == "scores" or not isinstance(error.__cause__, ValueError | ArithmeticError):
                    raise
                self._postponed = error
                return self._everything(outputs, labels)
            samples = per_sample(outputs, None) if labels is None else len(labels)
            if hasattr(self.function, "reduce"):
                return {"rows": self._checked(result, samples)}
            if result.ndim:
                if self._postponed is not None:
                    raise self._postponed
                if result.size != samples:
                    raise self._misfit(result, samples)
                self.returns = "scores"
                scores = self._checked(result, samples).reshape(samples)
                if not np.isfinite(scores).all():
                    raise DataError(f"{self._title} returned a score that is not finite", _HINT)
                return {"score": scores}
            self.returns = "set"
        return self._everything(outputs, labels)

    def reduce(self, kept: Mapping[str, np.ndarray]) -> float:
        """The metric over the kept rows."""
        if "score" in kept:
            return float(np.mean(kept["score"], dtype=np.float64))
        if "rows" in kept:
            with _UsersCode(self.path):
                return float(self.function.reduce(kept["rows"]))  # type: ignore[attr-defined]
        outputs = {name.removeprefix(_OUTPUT): array for name, array in kept.items() if name.startswith(_OUTPUT)}
        result = self._call(outputs, kept.get("labels"))
        if result.size != 1:
            raise self._misfit(result, per_sample(outputs, None))
        return float(result.reshape(()))

    def _call(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray:
        with _UsersCode(self.path):
            result = np.asarray(self.function(dict(outputs), labels))
        if result.dtype.kind not in "biuf":
            raise DataError(f"{self._title} returned {result.dtype}, wanted numbers", _HINT)
        return result

    def _checked(self, result: np.ndarray, samples: int) -> np.ndarray:
        if result.ndim == 0 or len(result) != samples:
            raise self._misfit(result, samples)
        return result.astype(np.uint8) if result.dtype.kind == "b" else result

    def _misfit(self, result: np.ndarray, samples: int) -> DataError:
        shape = ", ".join(str(size) for size in result.shape)
        return DataError(
            f"{self._title} returned shape [{shape}] for {samples} samples",
            "return one score per sample, or one float for the set",
        )

    @staticmethod
    def _everything(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> dict[str, np.ndarray]:
        per_sample(outputs, None if labels is None else len(labels))
        kept = {_OUTPUT + name: array for name, array in outputs.items()}
        return kept if labels is None else {**kept, "labels": labels}


def load(reference: str) -> UserFunction:
    """Load `path/file.py:function`.

    Raises:
        DataError: no such file, no such function, or the file itself raises (its own traceback in the
        message).
    """
    path, name = _file(reference)
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    module_name = f"mlpack_user_metric_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} cannot be loaded as Python", "pass --metric path/file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    # Files beside the metric are importable while it loads, as they are when it is run as a script.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with _UsersCode(path):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    found = getattr(module, name, None)
    if not callable(found):
        near = unknown("function", name, [each for each, value in vars(module).items() if callable(value)])
        raise DataError(f"{path.name} has no function {name!r}", near.hint)
    return UserFunction(path, found)


def _file(reference: str) -> tuple[Path, str]:
    text, _, name = reference.rpartition(":")
    path = Path(text).expanduser()
    if not path.is_file():
        raise DataError(f"metric file {text} does not exist", "pass --metric path/file.py:function")
    return path, name


class _UsersCode:
    """Turns whatever the user's code raises into a DataError with the traceback trimmed to their own file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, MlpackError):
            return
        own = [frame for frame in traceback.extract_tb(trace) if _same(frame.filename, self.path)]
        lines = [*traceback.format_list(own), *traceback.format_exception_only(error)]
        raise DataError(f"the metric in {self.path.name} raised\n{''.join(lines).rstrip()}", _HINT) from error


def _same(filename: str, path: Path) -> bool:
    return Path(filename).resolve() == path.resolve()
