"""Labelled data in the forms users have it in, streamed as named batches. Its table lists the kinds."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.table import Table
from mlpack.core.user_code import is_reference
from mlpack.datasets.fit import check_fits
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlpack.core.dataset import RawOptions
    from mlpack.core.model import TensorSpec
    from mlpack.core.stage import Say
    from mlpack.datasets.rows import RowDataset

__all__ = ["DATASETS", "check_fits", "open_data", "raw_kind"]

DATASETS: Table[Callable[..., RowDataset]] = Table(
    "kind of data",
    {
        "npz": "mlpack.datasets.npz:open_npz",
        "npy_folder": "mlpack.datasets.npy_folder:open_npy_folder",
        "python_function": "mlpack.datasets.python_function:PythonFunction",
        "random": "mlpack.datasets.random_rows:open_random",
        "table_file": "mlpack.datasets.raw_kinds:open_table",
        "image_folder": "mlpack.datasets.raw_kinds:open_images",
    },
)
RAW_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}
RAW_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
RAW_KINDS = {"table_file": "texts: a tokenizer has to make numbers of them", "image_folder": "image files"}
RAW_NEEDS = {
    "table_file": "--tokenizer FOLDER (with its tokenizer.json)",
    "image_folder": "say how the model wants them: --preprocess imagenet, or file.py:function",
}


def open_data(
    path: str,
    inputs: tuple[TensorSpec, ...] | None = None,
    *,
    seed: int = 0,
    fingerprint: str | None = None,
    raw: RawOptions | None = None,
    say: Say | None = None,
) -> RowDataset:
    """Open what `--data` or `--calibration` names; with the model's inputs, checked against them and cast.

    `random:N` needs the inputs. With the fingerprint of an earlier opening the values are not read again. `raw` says
    how texts and images are prepared; `say` hears how far the first look at those is.

    Raises:
        DataError: not there, no data, or data that does not fit.
    """
    if path.startswith("random:"):
        return DATASETS["random"](path, inputs, seed)
    dataset = _open(path, fingerprint, raw, say)
    return dataset if inputs is None else check_fits(dataset, inputs)


def raw_kind(path: str) -> str | None:
    """The kind of data where a path holds texts or images; None where it holds arrays, or nothing."""
    place = Path(path).expanduser()
    if place.is_file() and place.suffix.lower() in RAW_TABLES:
        return "table_file"
    if not place.is_dir() or any(place.glob("*.npy")):
        return None
    inside = (path for depth in ("*", "*/*") for path in place.glob(depth))
    return "image_folder" if any(path.suffix.lower() in RAW_IMAGES for path in inside) else None


def _open(path: str, fingerprint: str | None, raw: RawOptions | None, say: Say | None) -> RowDataset:
    place = Path(path).expanduser()
    if not place.exists():
        if is_reference(path):
            return DATASETS["python_function"](path, fingerprint)
        names = [each.name for each in place.parent.iterdir()] if place.parent.is_dir() else []
        near = difflib.get_close_matches(place.name, names, n=1)
        raise DataError(
            f"there is no data at {path}",
            f"did you mean {place.with_name(near[0])}?" if near else "check the path",
        )
    kind = raw_kind(path)
    if kind is not None:
        if raw is None:
            raise DataError(f"{path} holds {RAW_KINDS[kind]}", RAW_NEEDS[kind])
        return DATASETS[kind](place.resolve(), raw, fingerprint, say)
    if place.is_dir():
        return DATASETS["npy_folder"](place.resolve(), fingerprint)
    if not place.is_file():
        raise DataError(f"{path} is not a regular file", "give a .npz, a folder of .npy, or file.py:function")
    if place.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)", "save or copy it again")
    if place.suffix == ".py":
        raise DataError(f"{path} is Python code: say which function gives the batches", f"{path}:batches")
    if place.suffix == ".npy":
        raise DataError(f"{path} is a single array", f"give its folder ({place.parent}), with one .npy per input")
    return DATASETS["npz"](place.resolve(), fingerprint)
