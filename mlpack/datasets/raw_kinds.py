"""Opens the kinds of raw data: tables of texts and folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.datasets.raw import open_raw
from mlpack.pipeline import read_document

if TYPE_CHECKING:
    from mlpack.core.dataset import RawOptions
    from mlpack.datasets.rows import RowDataset


def open_table(path: Path, options: RawOptions, fingerprint: str | None = None) -> RowDataset:
    """The texts of a `.csv`, `.tsv`, `.jsonl` or `.parquet`.

    Raises:
        DataError, MissingLibrary: as in `TableFile` and `open_raw`.
    """
    from mlpack.datasets.table_file import TableFile

    return open_raw(TableFile(path, options.columns, _classes(options)), options, path.name, fingerprint)


def open_images(path: Path, options: RawOptions, fingerprint: str | None = None) -> RowDataset:
    """The images of a folder.

    Raises:
        DataError: as in `ImageFolder` and `open_raw`.
    """
    from mlpack.datasets.image_folder import ImageFolder

    return open_raw(ImageFolder(path, _classes(options)), options, path.name, fingerprint)


def _classes(options: RawOptions) -> tuple[str, ...]:
    """The names of the model's classes, as its pipeline has them."""
    return tuple(map(str, read_document(Path(options.pipeline) / "pipeline.yaml").get("labels") or ()))
