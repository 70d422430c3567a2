"""Loader: `loader.json` of a torch Model folder, how the module in it is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from mlpack.core.user_code import Reference
from mlpack.core.words import Frozen

ENTRY = "loader.json"
Kind = Literal["exported_program", "torchscript", "pickled_module", "state_dict", "onnx_file", "factory", "hf_folder"]


class Loader(Frozen):
    """What `backends/torch` needs to make the module. Files are relative to the Model folder."""

    kind: Kind
    sha256: str = Field(description="of what the user handed in")
    archive: str | None = Field(
        default=None, description="exported program, TorchScript or allowed pickle; folder with config and weights"
    )
    weights: str | None = Field(default=None, description="safetensors file")
    shared: dict[str, str] = Field(
        default_factory=dict, description="tensor names that are the same tensor as another, which is kept"
    )
    reference: str | None = Field(default=None, description="the user's factory")
    factory_file: str | None = Field(default=None, description="copy of the user's file")
    original_file: str | None = Field(default=None, description="where that file lay")
    folder: str | None = Field(default=None, description="where the user's own imports are looked for")
    pickled: bool = False
    unwrapped: tuple[str, ...] = ()
    usual: tuple[str, ...] = Field(default=(), description="inputs as --input has them, where nobody says otherwise")
    fixed: dict[str, int] = Field(
        default_factory=dict, description="size of a named dim that does not change, where the data has no other"
    )
    largest: dict[str, int] = Field(default_factory=dict, description="largest size of a named dim that has one")
    on_disk: bool = Field(
        default=False, description="weights are read as they are needed: together they are too many for the memory"
    )
    library: str | None = Field(default=None, description="whose code the module is, with its version")
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def code(self) -> Reference:
        """The user's code as it was referred to when it was loaded."""
        file = None if self.original_file is None else Path(self.original_file)
        text = self.reference or ""
        place, _, name = text.rpartition(":")
        return Reference(text, name, Path(self.folder or "."), file=file, module=None if file else place or None)

    def write(self, folder: Path) -> None:
        """Write `loader.json` into the folder."""
        (folder / ENTRY).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Loader:
        """Read `loader.json` of the folder."""
        return cls.model_validate_json((folder / ENTRY).read_text(encoding="utf-8"))
