"""What an artifact's answers mean, written for people: a row per sample, as `.csv` or `.jsonl`."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, Self

from mlpack.errors import DataError
from mlpack.pipeline import Pipeline, PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np

    from mlpack.core.dataset import Batch

SUFFIXES = (".csv", ".jsonl")


class Answers:
    """A table that grows by a batch at a time. Its columns: what the sample was, then what comes after the model."""

    def __init__(self, path: Path, pipeline: Path) -> None:
        """Opens the file.

        Raises:
            DataError: the pipeline says nothing of what comes after the model.
        """
        self._pipeline = Pipeline.load(pipeline)
        if self._pipeline.postprocess is None:
            raise DataError(
                "this artifact does not say what its answers mean", "write them as they are: --out answers.npz"
            )
        self.columns = self._pipeline.postprocess.columns
        self._json = path.suffix == ".jsonl"
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, batch: Batch, outputs: Mapping[str, np.ndarray]) -> None:
        """Write what was answered to a batch.

        Raises:
            DataError: the answers are not what the pipeline was made for.
        """
        try:
            columns = self._pipeline.finish(outputs, batch.raw or {})
        except PipelineError as error:
            raise DataError(
                f"what comes after the model: {error.message}", "write tensors: --out answers.npz"
            ) from error
        told = _told(batch)
        for at in range(len(batch)):
            self._write({name: values[at] for name, values in {**told, **columns}.items()})

    def facts(self) -> dict[str, Any]:
        """What `Predicted` says of them."""
        return {"outputs": {}, "nonfinite": {}, "columns": list(self.columns)}

    def _write(self, row: dict[str, Any]) -> None:
        if self._json:
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        if self._writer is None:
            self._writer = csv.DictWriter(self._stream, list(row))
            self._writer.writeheader()
        self._writer.writerow({name: _cell(value) for name, value in row.items()})


def _told(batch: Batch) -> dict[str, list[Any]]:
    """What each sample was: its texts, its file, or its row."""
    if batch.raw is None:
        return {"row": batch.rows.tolist()}
    if batch.names is not None:
        return {"file": batch.names}
    return batch.raw


def _cell(value: Any) -> Any:
    """Lists and mappings have no form in a table but JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
