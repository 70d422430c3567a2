"""Rows of texts in a `.csv`, `.tsv`, `.jsonl` or `.parquet`, read through Arrow without holding them in memory.

The file is streamed once into `<cache>/datasets/<sha256>/` in Arrow's own format, which is mapped: any rows can be had
from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.core.filesystem import refused_by_machine, temporary_name
from mlpack.core.model import sha256_of
from mlpack.datasets.cache import cache_folder
from mlpack.datasets.classes import numbered
from mlpack.datasets.raw import RawRows
from mlpack.errors import DataError, MissingLibrary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

TEXTS = ("text", "text_pair")
HELD = (*TEXTS, "label", "group", "cluster")
_USUAL = {"label": ("label", "labels"), "group": ("group",), "cluster": ("cluster",), "text_pair": ("text_pair",)}


class TableFile:
    """The rows of a table: `text` (and `text_pair`), `label`, `group` and `cluster` where it has them."""

    media = "text"

    def __init__(self, path: Path, columns: Mapping[str, str], classes: Sequence[str]) -> None:
        """`columns` says which column holds what; `classes` are the model's, in order of their numbers.

        Raises:
            DataError: no table, a column that is not there, or a label that is no class of the model.
            MissingLibrary: pyarrow is not installed.
        """
        digest = sha256_of(path)
        self._path = path
        self._table = arrow_table(path, digest, columns)
        self.columns = held(self._table, columns, str(path))
        self.digest = hashlib.sha256(f"{digest} {json.dumps(self.columns, sort_keys=True)}".encode()).hexdigest()
        self.labelled = "label" in self.columns
        self._fields = tuple(name for name in TEXTS if name in self.columns)
        self._labels = None if not self.labelled else numbered(_values(self._column("label"), path), classes, str(path))
        self._group = self._named("group")
        self._cluster = self._named("cluster")
        if self._cluster is not None:
            self._cluster = np.unique(self._cluster, return_inverse=True)[1].astype(np.int64)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def read(self, rows: np.ndarray) -> RawRows:
        """Texts of these rows, and what stands beside them."""
        taken = self._table.select([self.columns[name] for name in self._fields]).take(rows)
        return RawRows(
            {name: taken.column(self.columns[name]).to_pylist() for name in self._fields},
            *(None if each is None else each[rows] for each in (self._labels, self._cluster, self._group)),
        )

    def named(self, row: int) -> str:
        """Its number, the first row after the header being 1."""
        return f"row {row + 1}"

    def _column(self, name: str) -> Any:
        return self._table.column(self.columns[name])

    def _named(self, name: str) -> np.ndarray | None:
        if name not in self.columns:
            return None
        return np.array([str(value) for value in self._column(name).to_pylist()])


def first_texts(path: Path, columns: Mapping[str, str]) -> dict[str, str]:
    """The texts of the first row, by field.

    Raises:
        DataError: the table has no rows, or does not say where its texts are.
    """
    table = arrow_table(path, sha256_of(path), columns)
    if not table.num_rows:
        raise DataError(f"{path} has no rows", "give at least 20 samples")
    found = held(table, columns, str(path))
    return {name: str(table.column(found[name])[0].as_py()) for name in TEXTS if name in found}


def label_names(table: Any, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The names that stand as labels, in order; none where labels are numbers, or there are none."""
    if "label" not in columns:
        return ()
    values = table.column(columns["label"]).unique().to_pylist()
    return tuple(sorted({value for value in values if value})) if any(isinstance(each, str) for each in values) else ()


def held(table: Any, columns: Mapping[str, str], where: str) -> dict[str, str]:
    """Which column holds what: as it was said, else by the usual names.

    Raises:
        DataError: a column is not there, or which one holds the texts cannot be told.
    """
    from pyarrow import types

    there = list(table.column_names)
    for name, column in columns.items():
        if name not in HELD:
            raise DataError(f"--columns: a table holds {', '.join(HELD)}, not {name!r}", "--columns text=…,label=…")
        if column not in there:
            raise DataError(
                f"{where} has no column {column!r}: it has {', '.join(there)}", f"--columns {name}={there[0]}"
            )
    found = dict(columns)
    for name, usual in _USUAL.items():
        match = next((column for column in usual if column in there and column not in found.values()), None)
        if name not in found and match is not None:
            found[name] = match
    if "text" not in found:
        texts = [
            column
            for column in there
            if column not in found.values()
            and (
                types.is_string(table.schema.field(column).type)
                or types.is_large_string(table.schema.field(column).type)
            )
        ]
        if "text" in texts:
            texts = ["text"]
        if len(texts) != 1:
            raise DataError(
                f"which column of {where} holds the texts? It has {', '.join(there)}",
                f"--columns text={texts[0] if texts else there[0]},label={found.get('label', '…')}",
            )
        found["text"] = texts[0]
    return found


def arrow_table(path: Path, digest: str, columns: Mapping[str, str]) -> Any:
    """The file as a mapped Arrow table.

    Raises:
        DataError: it cannot be read as what its name says.
        MissingLibrary: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingLibrary(f"{path} is read with pyarrow", "pip install 'mlpack-toolchain[text]'") from error
    texts = sorted(column for name, column in columns.items() if name in TEXTS)
    key = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
    place = cache_folder() / "datasets" / digest / f"{key}.arrow"
    try:
        if not place.is_file():
            _convert(path, place, texts)
        return pa.ipc.open_file(pa.memory_map(str(place))).read_all()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {reason}", "save it again") from error


def _convert(path: Path, place: Path, texts: Iterable[str]) -> None:
    import pyarrow as pa

    temporary = temporary_name(place)
    with refused_by_machine(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            reader, schema = _reader(path, texts)
            with pa.ipc.new_file(str(temporary), schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)


def _reader(path: Path, texts: Iterable[str]) -> tuple[Iterable[Any], Any]:
    """Record batches in a stream, and their schema."""
    import pyarrow as pa

    if path.suffix == ".parquet":
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        return file.iter_batches(), file.schema_arrow
    reader: Any
    if path.suffix in {".jsonl", ".ndjson"}:
        import pyarrow.json

        reader = pyarrow.json.open_json(path)
        return reader, reader.schema
    import pyarrow.csv

    # A text of digits is a text all the same, and the word "null" is no missing value.
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys((*texts, "text", "text_pair"), pa.string()))
    parse = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True)
    reader = pyarrow.csv.open_csv(path, parse_options=parse, convert_options=convert)
    return reader, reader.schema


def _values(column: Any, path: Path) -> np.ndarray:
    """Labels as strings, whole numbers or floats.

    Raises:
        DataError: some are missing, or they are nothing of these.
    """
    values = column.to_pylist()
    missing = next((row for row, value in enumerate(values) if value is None or value == ""), None)
    if missing is not None:
        raise DataError(f"row {missing + 1} of {path} has no label", "give every row one, or leave the column out")
    found = np.array(values)
    if found.dtype.kind not in "USfiub":
        raise DataError(f"the labels of {path} are {column.type}", "make them names or numbers")
    return found
