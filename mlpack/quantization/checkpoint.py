"""Checkpoint: what calibration has seen so far, kept while it goes on, so that a killed one goes on where it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from mlpack.core.arrays import load_arrays, save_arrays
from mlpack.core.filesystem import sync, temporary_sibling

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.quantization.observers import Observer
    from mlpack.quantization.stream import Room

EVERY_S = 10.0


class Checkpoint:
    """A file with the state of all observers after a whole number of batches.

    Its owner gives each thing that is calibrated (graph, rows, method) a path of its own. What goes on from it finds
    the same ranges, to the bit, as what was never interrupted.
    """

    def __init__(self, path: Path, every_s: float = EVERY_S) -> None:
        self._path, self._every_s = path, every_s
        self._last = time.monotonic()

    def restore(self, observers: dict[str, Observer], infinite: dict[str, int], room: Room) -> int:
        """Put them into the state that was kept, if one was; the number of batches seen by then."""
        try:
            kept = load_arrays(self._path)
        except FileNotFoundError:
            return 0
        except (OSError, EOFError, ValueError, BadZipFile):
            # What a power cut left of it is worth no more than a calibration from the start.
            self.forget()
            return 0
        for place, (name, observer) in enumerate(observers.items()):
            own = f"{place}/"
            observer.restore({key.removeprefix(own): array for key, array in kept.items() if key.startswith(own)})
            infinite[name] = int(kept["infinite"][place])
        room.restore(kept["room"])
        return int(kept["batches"])

    def keep(self, observers: dict[str, Observer], infinite: dict[str, int], room: Room, batches: int) -> None:
        """Write the state after so many batches, where the last time is long enough ago."""
        if time.monotonic() - self._last < self._every_s:
            return
        states = {
            f"{place}/{key}": array
            for place, observer in enumerate(observers.values())
            for key, array in observer.state().items()
        }
        counts = np.array([infinite[name] for name in observers], np.int64)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        work = temporary_sibling(self._path)
        save_arrays(
            work / "state.npz", {**states, "infinite": counts, "room": room.state(), "batches": np.array(batches)}
        )
        sync(work / "state.npz")
        (work / "state.npz").replace(self._path)
        work.rmdir()
        self._last = time.monotonic()

    def forget(self) -> None:
        """Calibration has come to its end."""
        self._path.unlink(missing_ok=True)
