"""Texts and images as a dataset: raw rows, prepared batch by batch by the artifact's own pipeline."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlpack.core.dataset import Batch
from mlpack.core.model import TensorSpec, sha256_of
from mlpack.core.threads import usable_threads
from mlpack.datasets.survey import survey
from mlpack.errors import DataError
from mlpack.pipeline import Pipeline, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlpack.core.dataset import RawOptions
    from mlpack.core.stage import Say
    from mlpack.datasets.rows import RowDataset
    from mlpack.datasets.survey import Survey

_SHOWN = 3
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class RawRows:
    """Some rows of a source: values by field, and what stands beside them."""

    fields: dict[str, list[Any]]
    labels: np.ndarray | None = None
    cluster: np.ndarray | None = None
    group: np.ndarray | None = None


class RawSource(Protocol):
    """Where raw rows lie. `media` is what a field holds: text or image."""

    media: str
    labelled: bool

    @property
    def digest(self) -> str:
        """Over the content of all rows."""
        ...

    def __len__(self) -> int:
        """The number of rows, unusable ones included."""
        ...

    def read(self, rows: np.ndarray) -> RawRows:
        """These rows, in this order."""
        ...

    def named(self, row: int) -> str:
        """How a person finds this row: its place in a file, or its file."""
        ...


class RawDataset:
    """Rows of a source through a pipeline.

    Where samples differ in length, a batch holds samples of about one length: the batch of the middle lengths comes
    first, and the first ones are of lengths like all of them. Without groups of its own the
    data is then reported by length.
    """

    def __init__(self, source: RawSource, pipeline: Pipeline, found: Survey, options: RawOptions, name: str) -> None:
        assert pipeline.preprocess is not None
        self.fingerprint = found.fingerprint
        self.labelled = source.labelled
        self.notes = tuple(_notes(found, pipeline))
        self.inputs = tuple(
            TensorSpec(name=name, dtype=dtype, dims=dims) for name, dtype, dims in pipeline.preprocess.inputs
        )
        self._source = source
        self._pipeline = pipeline
        self._found = found
        self._in_order = options.order == "rows" or found.lengths is None
        self._lengths = found.buckets()
        self._name = name
        self._is_files = source.media == "image"

    def __len__(self) -> int:
        return len(self._found.rows)

    @property
    def content(self) -> np.ndarray:
        """A 64-bit hash of each sample before it is prepared, uint64 [n]."""
        return self._found.content

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of `size` samples; any may be shorter."""
        return self.batches_of(np.arange(len(self)), size)

    def batches_of(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        """Only these rows, in batches of `size`, prepared one batch ahead."""
        chosen = self._chosen(rows, size)
        if not self._is_files:
            yield from map(self._batch, chosen)
            return
        with ThreadPoolExecutor(usable_threads()) as pool:
            yield from self._ahead(chosen, pool)

    def _chosen(self, rows: np.ndarray, size: int) -> list[np.ndarray]:
        """The rows of each batch."""
        if not self._in_order:
            assert self._found.lengths is not None
            rows = rows[np.argsort(self._found.lengths[rows], kind="stable")]
        pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
        if self._in_order or len(pieces) < 2:  # noqa: PLR2004 - one batch has no order
            return pieces
        middle = (len(pieces) - 1) // 2
        # Multiples of the golden ratio lie evenly spread however many are taken: so do the first batches.
        order = np.argsort((np.arange(len(pieces)) - middle) * _GOLDEN % 1, kind="stable")
        return [pieces[at] for at in order]

    def _ahead(self, chosen: list[np.ndarray], pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """Each sample decoded by a thread of its own, the next batch while this one is used."""
        waiting: list[tuple[np.ndarray, RawRows, list[Any]]] = []
        for rows in chosen:
            raw = self._source.read(self._found.rows[rows])
            work = [pool.submit(self._one, raw, at, row) for at, row in enumerate(rows)]
            waiting.append((rows, raw, work))
            if len(waiting) > 1:
                yield self._joined(*waiting.pop(0))
        for left in waiting:
            yield self._joined(*left)

    def _one(self, raw: RawRows, at: int, row: int) -> dict[str, np.ndarray]:
        return self._prepared({name: values[at : at + 1] for name, values in raw.fields.items()}, np.array([row]))

    def _joined(self, rows: np.ndarray, raw: RawRows, work: Iterable[Any]) -> Batch:
        made = [each.result() for each in work]
        return self._with_rows({name: np.concatenate([each[name] for each in made]) for name in made[0]}, rows, raw)

    def _batch(self, rows: np.ndarray) -> Batch:
        raw = self._source.read(self._found.rows[rows])
        return self._with_rows(self._prepared(raw.fields, rows), rows, raw)

    def _prepared(self, fields: dict[str, list[Any]], rows: np.ndarray) -> dict[str, np.ndarray]:
        try:
            return self._pipeline.prepare(fields)
        except PipelineError as error:
            where = self._name if error.row is None else self._source.named(int(self._found.rows[rows[error.row]]))
            raise DataError(f"{where}: {error.message}", "it was fine when the data was opened: has it changed?") from (
                error
            )

    def _with_rows(self, inputs: dict[str, np.ndarray], rows: np.ndarray, raw: RawRows) -> Batch:
        group = raw.group
        if group is None and self._lengths is not None:
            group = self._lengths[rows]
        return Batch(
            inputs=inputs,
            labels=raw.labels,
            rows=rows,
            cluster=raw.cluster,
            group=group,
            raw=raw.fields,
            content=self._found.content[rows],
            names=[self._source.named(int(row)) for row in self._found.rows[rows]] if self._is_files else None,
        )


def open_raw(
    source: RawSource, options: RawOptions, name: str, fingerprint: str | None = None, say: Say | None = None
) -> RowDataset:
    """The dataset of a source, every sample of which has been looked at once.

    Raises:
        DataError: more samples than `skip_bad` cannot be prepared, or none is left.
    """
    folder = Path(options.pipeline)
    try:
        pipeline = Pipeline.load(folder)
    except PipelineError as error:
        raise DataError(error.message, "make it again: mlpack optimize … --data …") from error
    known = fingerprint or hashlib.sha256(f"{source.digest} {prepared_by(folder, pipeline)}".encode()).hexdigest()
    found = survey(source, pipeline, known, lambda done: say and say(f"looking at {name}", done, len(source)))
    if len(found.bad) > options.skip_bad:
        shown = "; ".join(f"{source.named(row)}: {why}" for row, why in found.bad[:_SHOWN])
        more = f"; and {len(found.bad) - _SHOWN} more" if len(found.bad) > _SHOWN else ""
        raise DataError(
            f"{len(found.bad)} of {len(source):,} samples of {name} cannot be used: {shown}{more}",
            f"mend or remove them, or leave them out: --skip-bad {len(found.bad)}",
        )
    if not len(found.rows):
        raise DataError(f"{name} has no sample that can be used", "give other data")
    return RawDataset(source, pipeline, found, options, name)


def prepared_by(folder: Path, pipeline: Pipeline) -> str:
    """What a prepared sample depends on in a pipeline: not what comes after the model, nor what the input is called."""
    before = {key: value for key, value in (pipeline.document["preprocess"] or {}).items() if key != "input"}
    if isinstance(before.get("inputs"), dict) and len(before["inputs"]) == 1:
        before["inputs"] = list(before["inputs"].values())
    used = {before.get(key) for key in ("tokenizer", "file")}
    files = [[path.name, sha256_of(path)] for path in sorted(folder.iterdir()) if path.name in used]
    return json.dumps([before, pipeline.labels, files], sort_keys=True)


def _notes(found: Survey, pipeline: Pipeline) -> Iterator[str]:
    """What a user should know of how the data was taken."""
    if found.bad:
        yield f"samples that cannot be used are left out: {len(found.bad):,}"
    longest = getattr(pipeline.preprocess, "max_length", None)
    if found.lengths is not None and longest:
        cut = int((found.lengths > longest).sum())
        if cut:
            yield f"{cut:,} of {len(found.rows):,} texts are longer than {longest} tokens and are cut there"
