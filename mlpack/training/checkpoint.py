"""Checkpoint: all that training has come to, kept while it goes on, so that a killed one goes on where it was."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import torch

from mlpack.core.filesystem import make_folder, refused_by_machine, sync, temporary_name

if TYPE_CHECKING:
    from pathlib import Path

# Writing may take so much of the time.
_SHARE = 0.05
_DAMAGED = (RuntimeError, EOFError, ValueError, KeyError, OSError, BadZipFile, pickle.UnpicklingError)


class Checkpoint:
    """One file, replaced as a whole. Tensors and plain values only: it is read without running code."""

    def __init__(self, path: Path, every_s: float) -> None:
        self._path, self._every_s = path, every_s
        self._last = time.monotonic()

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """What was kept; None where nothing was, or a power cut left half of it."""
        if not self._path.exists():
            return None
        try:
            kept: dict[str, Any] = torch.load(self._path, map_location=device, weights_only=True)
        except _DAMAGED:
            self._path.unlink()
            return None
        return kept

    def due(self) -> bool:
        """Whether the last one is long enough ago."""
        return time.monotonic() - self._last >= self._every_s

    def write(self, state: dict[str, Any]) -> None:
        """Keep this.

        Raises:
            MachineError: the disk is full.
        """
        started = time.monotonic()
        make_folder(self._path.parent)
        work = temporary_name(self._path)
        with refused_by_machine(self._path):
            try:
                torch.save(state, work)
                sync(work)
                work.replace(self._path)
                sync(self._path.parent)
            finally:
                work.unlink(missing_ok=True)
        self._last = time.monotonic()
        if self._every_s:
            self._every_s = max(self._every_s, (self._last - started) / _SHARE)
