"""Rows of texts in a `.csv`, `.tsv`, `.jsonl` or `.parquet`, read through Arrow without holding them in memory.

The file is streamed once into `<cache>/datasets/<sha256>/` in Arrow's own format, which is mapped: any rows can be had
from it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
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

TEXT, PAIR = "text", "text_pair"
_BESIDE = {"label": ("label", "labels"), "group": ("group",), "cluster": ("cluster",)}


@dataclass(frozen=True)
class Look:
    """What a table holds, before anything is made of it: fields of a sample, names of classes, rows."""

    columns: dict[str, str]
    fields: tuple[str, ...]
    classes: tuple[str, ...]
    rows: int


class TableFile:
    """The rows of a table: a text per field, `label`, `group` and `cluster` where it has them."""

    media = "text"

    def __init__(
        self, path: Path, columns: Mapping[str, str], classes: Sequence[str], fields: Sequence[str] | None = None
    ) -> None:
        """`columns` says which column holds what; `classes` are the model's, in order of their numbers.

        `fields` are the texts that a sample has; None: `text`, and `text_pair` where there is a column for it.

        Raises:
            DataError: no table, a column that is not there, or a label that is no class of the model.
            MissingLibrary: pyarrow is not installed.
        """
        digest = sha256_of(path)
        self._path = path
        self._table = arrow_table(path, digest, columns)
        self.columns = held(self._table, columns, fields, str(path))
        self.digest = hashlib.sha256(f"{digest} {json.dumps(self.columns, sort_keys=True)}".encode()).hexdigest()
        self.labelled = "label" in self.columns
        self._fields = texts_of(self.columns)
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


def look(path: Path, columns: Mapping[str, str], fields: Sequence[str] | None) -> Look:
    """What a table holds.

    Raises:
        DataError: it cannot be read, or does not say where its texts are.
    """
    table = arrow_table(path, sha256_of(path), columns)
    found = held(table, columns, fields, str(path))
    return Look(found, texts_of(found), _label_names(table, found), int(table.num_rows))


def first_texts(path: Path, columns: Mapping[str, str], fields: Sequence[str] | None) -> dict[str, str]:
    """The texts of the first row, by field.

    Raises:
        DataError: the table has no rows, or does not say where its texts are.
    """
    table = arrow_table(path, sha256_of(path), columns)
    if not table.num_rows:
        raise DataError(f"{path} has no rows", "give at least 20 samples")
    found = held(table, columns, fields, str(path))
    return {name: str(table.column(found[name])[0].as_py()) for name in texts_of(found)}


def texts_of(columns: Mapping[str, str]) -> tuple[str, ...]:
    """The fields of a sample: what is no label, group or cluster."""
    return tuple(name for name in columns if name not in _BESIDE)


def _label_names(table: Any, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The names that stand as labels, in order; none where labels are numbers, or there are none."""
    if "label" not in columns:
        return ()
    values = table.column(columns["label"]).unique().to_pylist()
    return tuple(sorted({value for value in values if value})) if any(isinstance(each, str) for each in values) else ()


def held(table: Any, columns: Mapping[str, str], fields: Sequence[str] | None, where: str) -> dict[str, str]:
    """Which column holds what: as it was said, else by the usual names; the fields of a sample first.

    Raises:
        DataError: a column is not there, or which one holds the texts cannot be told.
    """
    there = list(table.column_names)
    possible = (*(fields or (TEXT, PAIR)), *_BESIDE)
    for name, column in columns.items():
        if name not in possible:
            raise DataError(f"--columns: a table holds {', '.join(possible)}, not {name!r}", "--columns text=…,label=…")
        if column not in there:
            raise DataError(
                f"{where} has no column {column!r}: it has {', '.join(there)}", f"--columns {name}={there[0]}"
            )
    beside = {name: column for name, column in columns.items() if name in _BESIDE}
    for name, usual in _BESIDE.items():
        match = next((each for each in usual if each in there and each not in columns.values()), None)
        if name not in beside and match is not None:
            beside[name] = match
    texts: dict[str, str] = {}
    for name in fields or (TEXT, *((PAIR,) if PAIR in columns or PAIR in there else ())):
        taken = [*beside.values(), *columns.values()]
        chosen = columns.get(name) or _by_name_or_alone(table, name, taken)
        if chosen is None:
            likely = next((each for each in _text_columns(table) if each not in taken), there[0])
            raise DataError(
                f"which column of {where} holds the {name}? It has {', '.join(there)}",
                f"--columns {name}={likely},label={beside.get('label', '…')}",
            )
        texts[name] = chosen
    return {**texts, **beside}


def _by_name_or_alone(table: Any, name: str, taken: Sequence[str]) -> str | None:
    """The column of this name; for `text` also the only column of texts that is nothing else."""
    if name in table.column_names:
        return name
    if name != TEXT:
        return None
    free = [each for each in _text_columns(table) if each not in taken]
    return free[0] if len(free) == 1 else None


def _text_columns(table: Any) -> list[str]:
    from pyarrow import types

    return [each.name for each in table.schema if types.is_string(each.type) or types.is_large_string(each.type)]


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
    texts = sorted(column for name, column in columns.items() if name not in _BESIDE)
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
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys((*texts, TEXT, PAIR), pa.string()))
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
