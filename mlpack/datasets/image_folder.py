"""A folder of images, one subfolder per class; or images alone, without labels."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.model import sha256_of
from mlpack.datasets import RAW_IMAGES
from mlpack.datasets.classes import numbered
from mlpack.datasets.raw import RawRows
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def class_names(folder: Path) -> tuple[str, ...]:
    """The subfolders that hold images, in order; none where images lie in the folder itself."""
    return tuple(
        each.name
        for each in sorted(folder.iterdir())
        if each.is_dir() and not each.name.startswith(".") and any(_is_image(path) for path in each.rglob("*"))
    )


class ImageFolder:
    """The images of a folder in order of their paths, read when they are asked for."""

    media = "image"

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        """`classes` are the model's, in order of their numbers.

        Raises:
            DataError: no images, images on both levels, or a subfolder that is no class of the model.
        """
        names = class_names(folder)
        loose = sorted(path for path in folder.iterdir() if _is_image(path))
        if names and loose:
            raise DataError(
                f"{folder} has images beside its subfolders, such as {loose[0].name}",
                "put each image into the subfolder of its class",
            )
        self._folder = folder
        self.labelled = bool(names)
        # Names, not paths: a path takes ten times the memory, and a folder may hold a million images.
        self._names = [path.name for path in loose] or [
            path.relative_to(folder).as_posix()
            for name in names
            for path in sorted((folder / name).rglob("*"))
            if _is_image(path)
        ]
        if not self._names:
            raise DataError(f"the folder {folder} holds no images", "one subfolder per class: data/cat/1.png")
        self._labels = None
        if names:
            of = numbered(np.array(names), classes, str(folder))
            at = dict(zip(names, of, strict=True))
            self._labels = np.array([at[name.partition("/")[0]] for name in self._names], dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """Over the names and contents of all files, which are read for it."""
        told = (f"{name} {sha256_of(self._folder / name)}" for name in self._names)
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def read(self, rows: np.ndarray) -> RawRows:
        """The bytes of these files."""
        content = [(self._folder / self._names[row]).read_bytes() for row in rows]
        return RawRows({"image": content}, None if self._labels is None else self._labels[rows])

    def named(self, row: int) -> str:
        """The file's path inside the folder."""
        return self._names[row]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in RAW_IMAGES and not path.name.startswith(".") and path.is_file()
