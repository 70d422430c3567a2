"""Opens the kinds of raw data: tables of texts and folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.datasets.raw import open_raw
from mlpack.pipeline import FILE, read_document

if TYPE_CHECKING:
    from mlpack.core.dataset import RawOptions
    from mlpack.core.stage import Say
    from mlpack.datasets.rows import RowDataset


def open_table(path: Path, options: RawOptions, fingerprint: str | None = None, say: Say | None = None) -> RowDataset:
    """The texts of a `.csv`, `.tsv`, `.jsonl` or `.parquet`.

    Raises:
        DataError, MissingLibrary: as in `TableFile` and `open_raw`.
    """
    from mlpack.datasets.table_file import TableFile

    fields = (_document(options).get("preprocess") or {}).get("fields")
    return open_raw(TableFile(path, options.columns, _classes(options), fields), options, path.name, fingerprint, say)


def open_images(path: Path, options: RawOptions, fingerprint: str | None = None, say: Say | None = None) -> RowDataset:
    """The images of a folder.

    Raises:
        DataError: as in `ImageFolder` and `open_raw`.
    """
    from mlpack.datasets.image_folder import ImageFolder

    return open_raw(ImageFolder(path, _classes(options)), options, path.name, fingerprint, say)


def _classes(options: RawOptions) -> tuple[str, ...]:
    """The names of the model's classes, as its pipeline has them."""
    return tuple(map(str, _document(options).get("labels") or ()))


def _document(options: RawOptions) -> dict[str, Any]:
    return read_document(Path(options.pipeline) / FILE)
