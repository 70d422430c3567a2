"""Looks at every raw sample once: can it be prepared, how long is it, what is its content's hash."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.core.filesystem import write_atomic
from mlpack.core.threads import usable_threads
from mlpack.datasets.cache import cache_folder
from mlpack.pipeline import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlpack.datasets.raw import RawRows, RawSource
    from mlpack.pipeline import Pipeline

_PIECE = 256
_SHORTEST_BUCKET = 16


@dataclass(frozen=True, eq=False)
class Survey:
    """`rows` [n] are the usable rows of the source; `content` uint64 [n]; `lengths` [n] or None; `bad` the others."""

    fingerprint: str
    rows: np.ndarray
    content: np.ndarray
    lengths: np.ndarray | None
    bad: tuple[tuple[int, str], ...]

    def buckets(self) -> np.ndarray | None:
        """In words, which lengths each sample belongs to; doubling from 16 on. None where there is one only."""
        if self.lengths is None or not len(self.lengths):
            return None
        ends = np.maximum(_SHORTEST_BUCKET, 1 << np.ceil(np.log2(np.maximum(self.lengths, 1))).astype(np.int64))
        if len(np.unique(ends)) < 2:  # noqa: PLR2004 - one bucket says nothing
            return None
        return np.array([
            f"up to {end} tokens" if end == _SHORTEST_BUCKET else f"{end // 2 + 1} to {end} tokens" for end in ends
        ])  # fmt: skip

    def save(self, path: Path) -> None:
        """Write it as `.npz`, at once or not at all."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            rows=self.rows,
            content=self.content,
            lengths=np.empty(0, np.int64) if self.lengths is None else self.lengths,
            bad_rows=np.array([row for row, _ in self.bad], dtype=np.int64),
            bad_why=np.array([why for _, why in self.bad], dtype=np.str_),
        )
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> Survey:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            bad = zip(stored["bad_rows"].tolist(), stored["bad_why"].tolist(), strict=True)
            lengths = stored["lengths"]
            return cls(
                fingerprint=fingerprint,
                rows=stored["rows"],
                content=stored["content"],
                lengths=lengths if len(lengths) else None,
                bad=tuple((int(row), str(why)) for row, why in bad),
            )


def survey(source: RawSource, pipeline: Pipeline, fingerprint: str, tell: Callable[[int], object]) -> Survey:
    """Look at all samples, or take what an earlier look at the same content found.

    `tell` hears how many have been looked at.
    """
    place = cache_folder() / "surveys" / f"{fingerprint}.npz"
    if place.is_file():
        return Survey.load(place, fingerprint)
    rows: list[int] = []
    content: list[int] = []
    lengths: list[int] = []
    bad: list[tuple[int, str]] = []
    for row, (length, digest, why) in enumerate(_looks(source, pipeline)):
        if row % _PIECE == 0:
            tell(row)
        if why is not None:
            bad.append((row, why))
            continue
        rows.append(row)
        content.append(digest)
        if length is not None:
            lengths.append(length)
    found = Survey(
        fingerprint=fingerprint,
        rows=np.array(rows, dtype=np.int64),
        content=np.array(content, dtype=np.uint64),
        lengths=np.array(lengths, dtype=np.int64) if lengths else None,
        bad=tuple(bad),
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    found.save(place)
    return found


def _looks(source: RawSource, pipeline: Pipeline) -> Iterator[tuple[int | None, int, str | None]]:
    """Length, content hash, and what is wrong, of each row in turn."""
    assert pipeline.preprocess is not None
    with ThreadPoolExecutor(usable_threads()) as pool:
        for start in range(0, len(source), _PIECE):
            raw = source.read(np.arange(start, min(start + _PIECE, len(source))))
            count = len(next(iter(raw.fields.values())))
            lengths = _lengths(raw, pipeline)
            if lengths is None:
                yield from pool.map(lambda at, raw=raw: _look(raw, at, pipeline), range(count))
            else:
                yield from ((int(lengths[at]), _hash(_one(raw, at)), None) for at in range(count))


def _lengths(raw: RawRows, pipeline: Pipeline) -> np.ndarray | None:
    """Of many samples at once; None where all are of one size, or one of them cannot be prepared."""
    assert pipeline.preprocess is not None
    try:
        return pipeline.preprocess.lengths(raw.fields)
    except PipelineError:
        return None


def _one(raw: RawRows, at: int) -> dict[str, list[Any]]:
    return {name: values[at : at + 1] for name, values in raw.fields.items()}


def _look(raw: RawRows, at: int, pipeline: Pipeline) -> tuple[int | None, int, str | None]:
    assert pipeline.preprocess is not None
    one = _one(raw, at)
    hashed = _hash(one)
    try:
        lengths = pipeline.preprocess.lengths(one)
        if lengths is not None:
            return int(lengths[0]), hashed, None
        pipeline.prepare(one)
    except PipelineError as error:
        return None, hashed, error.message
    return None, hashed, None


def _hash(one: dict[str, list[Any]]) -> int:
    """BLAKE2b over the fields' values, 64 bits."""
    made = hashlib.blake2b(digest_size=8)
    for name in sorted(one):
        (value,) = one[name]
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        made.update(len(raw).to_bytes(8, "little"))
        made.update(raw)
    return int.from_bytes(made.digest(), "little")
