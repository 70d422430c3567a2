"""Source: one kind of thing that a user may hand in, and the words its files speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.loader import Kind
    from mlpack.core.model import Model
    from mlpack.core.recipe import SourceSpec
    from mlpack.core.user_code import Reference

Container = Literal["pt2", "torchscript", "torch_zip", "torch_legacy", "safetensors", "onnx", "code", "hf"]


@dataclass(frozen=True)
class Detected:
    """What a file turned out to be. `path` is None for a factory; `factory` is the user's function, if any.

    `imports` are the globals that a pickle inside would import, `suspicious` those among them that can run
    code; both were found without unpickling.
    """

    kind: Kind
    container: Container
    sha256: str
    path: Path | None = None
    factory: Reference | None = None
    factory_sha256: str | None = None
    imports: tuple[str, ...] = ()
    suspicious: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The file, of a kind that has one."""
        if self.path is None:
            raise AssertionError(self.kind)
        return self.path

    @property
    def code(self) -> Reference:
        """The factory, of a kind that has one."""
        if self.factory is None:
            raise AssertionError(self.kind)
        return self.factory


class Source(Protocol):
    """One file per kind, one line in the table."""

    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> Model | None:
        """Write the Model folder into `out`.

        Gives the Model where the file says all about it (ONNX); None for torch kinds, whose `loader.json`
        the stage completes once it has seen the module run.

        Raises:
            ModelError: the file or the factory cannot be used.
        """
        ...
