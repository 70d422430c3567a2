"""Backend: a library that runs models in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import numpy as np

    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target


@dataclass(frozen=True)
class Spent:
    """What one operator type takes in one run within one module of the user's (its path, empty where unknown), ms."""

    operator: str
    module: str
    ms: float


def spent(milliseconds: Mapping[tuple[str, str], float]) -> tuple[Spent, ...]:
    """By operator type and module; what takes no time is left out."""
    return tuple(Spent(operator, module, ms) for (operator, module), ms in milliseconds.items() if ms > 0)


class Runner(Protocol):
    """An opened model. Calling it is copy_in, compute, copy_out; the three apart are what a profile times."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name."""
        ...

    def copy_in(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Hand the inputs over to the library."""
        ...

    def compute(self) -> None:
        """Run the model on what was copied in."""
        ...

    def copy_out(self) -> dict[str, np.ndarray]:
        """The outputs as numpy arrays."""
        ...

    def device_ms(self) -> float | None:
        """What the last compute took by the device's own clock; None where it has none that the library shows."""
        ...


class Backend(Protocol):
    """A library that runs models here. One file per backend, one line in the table."""

    name: str
    libraries: tuple[str, ...]
    formats: tuple[Format, ...]

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """Why this model cannot run here with these options, or None where it can."""
        ...

    def open(self, model: Model, target: Target, options: BackendOptions) -> AbstractContextManager[Runner]:
        """A context manager that yields the opened model.

        Raises:
            MissingHardware: the device asked for is not there (never another one instead).
            StageFailed: the library refuses this model.
        """
        ...

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Where one run's time goes, by the library's own profiler."""
        ...
