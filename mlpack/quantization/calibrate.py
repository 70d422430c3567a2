"""Calibration: the ranges of a graph's activations, gathered while batches stream through it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlpack.quantization.coverage import INFINITE
from mlpack.quantization.range_table import TensorRange
from mlpack.quantization.shown import Arrays, showing, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx

    from mlpack.quantization.observers import Observer

# All observed activations of a run are alive at once; beyond this, a batch is run in parts.
_HELD_BYTES = 256 << 20
_LARGE_BYTES = 256 << 10
_M_MMAP_THRESHOLD = -3


def calibrate(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[Arrays],
    observe: Callable[[], Observer],
    *,
    threads: int,
    cut: bool,
) -> list[TensorRange]:
    """Run every batch once and see what values these tensors take.

    Memory does not grow with the number of batches: of a tensor only its observer is kept. Values that are no numbers
    or that stand for infinity, as masks do, are left out and counted.

    Args:
        graph: with its shapes; tensors inside of its subgraphs cannot be seen.
        tensors: names of float activations, the graph's inputs and outputs among them.
        batches: feeds by input name, first axis samples; an empty one is passed over.
        observe: makes the observer of a tensor.
        threads: of ONNX Runtime.
        cut: whether a batch may be run in parts, so that what is held stays below 256 MB.
    """
    _return_large_blocks()
    fed = {each.name for each in graph.graph.input}
    made = [name for name in tensors if name not in fed]
    observers = {name: observe() for name in tensors}
    infinite = dict.fromkeys(tensors, 0)
    room = _Room()
    with tempfile.TemporaryDirectory() as folder:
        session = showing(graph, made, Path(folder) / "shown.onnx", threads)
        for batch in batches:
            rows = len(next(iter(batch.values())))
            start = 0
            while start < rows:
                size = room.rows(batch, rows - start) if cut else rows
                part = {name: array[start : start + size] for name, array in batch.items()}
                # No name is kept of what a run gave: the next one starts when nothing of it is left.
                room.learn(part, _see({**part, **tensors_of(session, made, part)}, observers, infinite))
                start += size
            for observer in observers.values():
                observer.end_batch()
    return [
        TensorRange(tensor=name, low=low, high=high, infinite=infinite[name])
        for name, (low, high) in ((name, observer.range()) for name, observer in observers.items())
    ]


def _return_large_blocks() -> None:
    """From now on large blocks go back to the system when they are freed; elsewhere than in glibc nothing happens.

    Its threshold otherwise grows with what is freed, and holes of all sizes stay with the process: mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _see(values: Arrays, observers: dict[str, Observer], infinite: dict[str, int]) -> int:
    """Show each observer its tensor; how many bytes the values took."""
    for name, observer in observers.items():
        flat = values[name].astype(np.float32, copy=False).reshape(-1)
        known, least, largest = _finite(flat)
        infinite[name] += flat.size - known.size
        if known.size:
            observer.add(known, least, largest)
    return sum(array.nbytes for array in values.values())


class _Room:
    """How many rows fit into a run. The first run has one row, to learn what a row holds.

    A longer row is taken to hold the square of that, as attention does.
    """

    def __init__(self) -> None:
        self._each = float(_HELD_BYTES)
        self._length = math.inf

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


def _finite(flat: np.ndarray) -> tuple[np.ndarray, float, float]:
    """What of it is a number and does not stand for infinity, and the ends of that."""
    least, largest = flat.min(initial=np.inf), flat.max(initial=-np.inf)
    if least > -INFINITE and largest < INFINITE:
        return flat, float(least), float(largest)
    known = flat[np.abs(flat) < INFINITE]
    return known, float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
