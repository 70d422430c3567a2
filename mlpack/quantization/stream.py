"""A graph's inner tensors, run by run, while batches stream through it: nothing of a run is kept for the next."""

from __future__ import annotations

import contextlib
import ctypes
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlpack.quantization.shown import Arrays, showing, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx
    import onnxruntime as ort

# All observed activations of a run are alive at once; beyond this, a batch is run in parts.
_HELD_BYTES = 256 << 20
_LARGE_BYTES = 256 << 10
_M_MMAP_THRESHOLD = -3


def stream(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[Arrays],
    see: Callable[[Arrays], None],
    *,
    end_batch: Callable[[], None] = lambda: None,
    threads: int,
    cut: bool,
    room: Room | None = None,
) -> None:
    """Run every batch once and show what these tensors hold; memory does not grow with the number of batches.

    Args:
        graph: with its shapes; tensors inside of its subgraphs cannot be seen.
        tensors: names of activations, the graph's inputs and outputs among them.
        batches: feeds by input name, first axis samples; an empty one is passed over.
        see: gets the tensors of each run by name, and must not keep them.
        end_batch: is called after the last run of a batch.
        threads: of ONNX Runtime.
        cut: whether a batch may be run in parts, so that what is held stays below 256 MB.
        room: what earlier batches taught of the size of a part.
    """
    fed = {each.name for each in graph.graph.input}
    made = [name for name in tensors if name not in fed]
    room = room or Room()
    with tempfile.TemporaryDirectory() as folder:
        sessions = _Sessions(partial(showing, graph, made, Path(folder) / "shown.onnx", threads))
        for batch in batches:
            rows = len(next(iter(batch.values())))
            start = 0
            while start < rows:
                size = room.rows(batch, rows - start) if cut else rows
                part = {name: array[start : start + size] for name, array in batch.items()}
                # No name is kept of what a run gave: the next one starts when nothing of it is left.
                room.learn(part, _shown(see, {**part, **tensors_of(sessions.of(part), made, part)}))
                start += size
            end_batch()


def _shown(see: Callable[[Arrays], None], values: Arrays) -> int:
    """How many bytes the values took."""
    see(values)
    return sum(array.nbytes for array in values.values())


class _Sessions:
    """One at a time: with an arena while all rows have one shape, without from the first row of another shape on.

    Without, the pages of every tensor are new ones in every run, which takes as long as the run itself.
    """

    def __init__(self, opened: Callable[..., ort.InferenceSession]) -> None:
        self._opened = opened
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._session: ort.InferenceSession | None = None
        self._arena = True

    def of(self, part: Arrays) -> ort.InferenceSession:
        """The session to run these rows."""
        shapes = {name: array.shape[1:] for name, array in part.items()}
        if self._arena and self._shapes is not None and self._shapes != shapes:
            self._arena = False
            # The arena goes before anything takes its place.
            self._session = None
            _return_large_blocks()
        self._shapes = shapes
        self._session = self._session or self._opened(arena=self._arena)
        return self._session


def _return_large_blocks() -> None:
    """From now on large blocks go back to the system when they are freed; elsewhere than in glibc nothing happens.

    Its threshold otherwise grows with what is freed, and holes of all sizes stay with the process: mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class Room:
    """How many rows fit into a run. The first run has one row, to learn what a row holds.

    A longer row is taken to hold the square of that, as attention does.
    """

    def __init__(self) -> None:
        self._each = float(_HELD_BYTES)
        self._length = math.inf

    def state(self) -> np.ndarray:
        """What it has learnt."""
        return np.array([self._each, self._length])

    def restore(self, state: np.ndarray) -> None:
        """Know what another one had learnt: parts are cut as it would have."""
        self._each, self._length = (float(number) for number in state)

    def rows(self, batch: Arrays, most: int) -> int:
        """Of the next run."""
        each = self._each * max(1.0, _length(batch) / self._length) ** 2
        return max(1, min(most, int(_HELD_BYTES // max(each, 1.0))))

    def learn(self, part: Arrays, held: int) -> None:
        """How many bytes a run held."""
        self._each = held / len(next(iter(part.values())))
        self._length = max(_length(part), 1.0)


def _length(batch: Arrays) -> float:
    """Numbers in a row."""
    return sum(array.size for array in batch.values()) / len(next(iter(batch.values())))
