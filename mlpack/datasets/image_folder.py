"""A folder of images, one subfolder per class; or images alone, without labels."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.model import sha256_of
from mlpack.datasets import RAW_IMAGES
from mlpack.datasets.classes import numbered
from mlpack.datasets.raw import RawRows
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
        self._names = [path.name for path in loose] or [image for name in names for image in _images(folder, name)]
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
        whole = hashlib.sha256()
        for at, name in enumerate(self._names):
            between = "\n" if at else ""
            whole.update(f"{between}{name} {sha256_of(self._folder / name)}".encode())
        return whole.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def read(self, rows: np.ndarray) -> RawRows:
        """The bytes of these files."""
        content = [(self._folder / self._names[row]).read_bytes() for row in rows]
        return RawRows({"image": content}, None if self._labels is None else self._labels[rows])

    def named(self, row: int) -> str:
        """The file's path inside the folder."""
        return self._names[row]


def _images(folder: Path, inside: str) -> Iterator[str]:
    """The images in this subfolder and below it, in the order of their paths, named from the folder on."""
    with os.scandir(folder / inside) as entries:
        found = sorted(entry.name for entry in entries)
    for name in found:
        path = folder / inside / name
        if path.is_dir() and not path.is_symlink():
            yield from _images(folder, f"{inside}/{name}")
        elif _is_image(path):
            yield f"{inside}/{name}"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in RAW_IMAGES and not path.name.startswith(".") and path.is_file()
