"""Calibration: the ranges of a graph's activations, gathered while batches stream through it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mlpack.quantization.coverage import INFINITE
from mlpack.quantization.range_table import TensorRange
from mlpack.quantization.same_values import sources
from mlpack.quantization.stream import Room, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx

    from mlpack.quantization.checkpoint import Checkpoint
    from mlpack.quantization.observers import Observer
    from mlpack.quantization.shown import Arrays


def calibrate(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[Arrays],
    observe: Callable[[], Observer],
    *,
    threads: int,
    cut: bool,
    checkpoint: Checkpoint | None = None,
) -> list[TensorRange]:
    """The ranges of these float activations, in one pass over the batches (see `stream` for the arguments).

    Of a tensor only what `observe` makes is kept; tensors that hold the same values share it. Values that are no
    numbers or that stand for infinity, as masks do, are left out and counted. With a checkpoint, batches that an
    interrupted run has seen are passed over.
    """
    source = sources(graph, tensors)
    observers = {name: observe() for name in source.values()}
    infinite = dict.fromkeys(observers, 0)
    room = Room()
    seen = checkpoint.restore(observers, infinite, room) if checkpoint else 0

    def see(values: Arrays) -> None:
        for name, observer in observers.items():
            flat = values[name].astype(np.float32, copy=False).reshape(-1)
            known, least, largest = _finite(flat)
            infinite[name] += flat.size - known.size
            if known.size:
                observer.add(known, least, largest)

    def end_batch() -> None:
        nonlocal seen
        for observer in observers.values():
            observer.end_batch()
        seen += 1
        if checkpoint:
            checkpoint.keep(observers, infinite, room, seen)

    left = islice(batches, seen, None)
    stream(graph, list(observers), left, see, end_batch=end_batch, threads=threads, cut=cut, room=room)
    if checkpoint:
        checkpoint.forget()
    ranges = {name: observer.range() for name, observer in observers.items()}
    return [
        TensorRange(tensor=name, low=ranges[of][0], high=ranges[of][1], infinite=infinite[of])
        for name, of in source.items()
    ]


def _finite(flat: np.ndarray) -> tuple[np.ndarray, float, float]:
    """What of it is a number and does not stand for infinity, and the ends of that."""
    least, largest = flat.min(initial=np.inf), flat.max(initial=-np.inf)
    if least > -INFINITE and largest < INFINITE:
        return flat, float(least), float(largest)
    known = flat[np.abs(flat) < INFINITE]
    return known, float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
