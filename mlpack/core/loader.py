"""Loader: `loader.json` of a torch Model folder, how the module in it is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from mlpack.core.user_code import Reference
from mlpack.core.words import Frozen

ENTRY = "loader.json"
Kind = Literal["exported_program", "torchscript", "pickled_module", "state_dict", "onnx_file", "factory", "hf_folder"]
Plain = bool | int | float | tuple[int, ...] | None

# What a module cannot be changed in, and why; the other kinds give an nn.Module.
_FIXED: dict[Kind, str] = {
    "exported_program": "an exported program has its sizes in every operator of its graph",
    "torchscript": "a TorchScript archive has its code compiled into it",
    "onnx_file": "an ONNX file is a graph without the module that it was made from",
}
_ON_DISK = "its weights stay on the disk, where none is changed (--weights memory takes them from there)"


class Surgery(Frozen):
    """What sets a changed module apart from the one that the loader makes, besides its tensors.

    It is done again in this order. Places and names are those before `removed`, and after it those of what is left.
    """

    removed: tuple[str, ...] = Field(default=(), description="LIST.PLACE of what was taken out of a list of modules")
    skipped: tuple[str, ...] = Field(default=(), description="paths of modules that pass on what they are given")
    attributes: dict[str, dict[str, Plain]] = Field(
        default_factory=dict, description="numbers of a module that differ, sizes above all, by its path"
    )


class Changed(Frozen):
    """A module that is no longer what the loader makes: its surgery, and all its tensors."""

    weights: str = Field(description="safetensors file with every tensor of the changed module")
    shared: dict[str, str] = Field(default_factory=dict, description="tensor names that are the same tensor as another")
    surgery: Surgery = Surgery()


class Loader(Frozen):
    """What `backends/torch` needs to make the module. Files are relative to the Model folder."""

    kind: Kind
    sha256: str = Field(description="of what the user handed in")
    archive: str | None = Field(
        default=None, description="exported program, TorchScript or allowed pickle; folder with config and weights"
    )
    weights: str | None = Field(default=None, description="safetensors file; None: those that the code gives")
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
    changed: Changed | None = Field(default=None, description="what was done to the module since it was handed in")

    @property
    def unchangeable(self) -> str | None:
        """Why there is no module to change, or None."""
        return _ON_DISK if self.on_disk else _FIXED.get(self.kind)

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
